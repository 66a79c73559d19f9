"""Training and selection data of any common format as one stream of samples (docs/data-formats.md).

    from vfl.data import BadRow, check_images, detect, read

    for row in read("llava.json", images="train2017"):   # also JSON lines, parquet, saved datasets, tar archives
        ...

Start with sample.py (what comes out) and reading.py. A container (jsonarray.py, jsonl.py, parquet.py, hf.py,
webdataset.py) gives stored rows; kinds.py says where a row holds its conversation, turns.py and conversation.py bring
it into one form, imagefolder.py finds the images. Writers of the same formats belong beside the containers.
"""

from vfl.data.check import check_images
from vfl.data.formats import Format, detect
from vfl.data.imageref import ImageRef
from vfl.data.kinds import Kind
from vfl.data.reading import read
from vfl.data.sample import BadRow, Message, Sample

__all__ = ["BadRow", "Format", "ImageRef", "Kind", "Message", "Sample", "check_images", "detect", "read"]
