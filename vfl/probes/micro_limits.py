"""What the embedded model has seen: probes for it must be drawn within these limits.

Plain numbers and names, imported by the probe generator and by the training data alike.
"""

SIZE = 80  # image side in pixels: 5 x 5 vision tokens
CELL = 16  # one vision token covers one cell; objects fill exactly one cell, aligned to it
GRID = SIZE // CELL

# Bundled objects that differ clearly at 16 x 16 pixels. Boxes are cells: multiples of CELL.
OBJECTS = ("apple", "bus", "cat", "door", "fish", "hat", "lemon", "pig", "tree", "umbrella")
MAX_OBJECTS = 4  # the target object and up to three different others

SOLID_SIZE = 16  # a solid fills one cell, aligned to it
COUNTS = (1, 2, 3, 4, 5)

# Three capital letters; the words of the probes, while training also draws letters at random.
WORDS = (
    "ACE", "AIR", "ANT", "ARM", "BAG", "BED", "BIG", "BOX", "BUS", "CAP", "CAT", "CUP", "DAY", "DOG", "DRY", "EAR",
    "EGG", "ELF", "FAN", "FIG", "FLY", "FOX", "GEM", "GUM", "HAT", "HEN", "HOT", "ICE", "INK", "JAM", "JET", "JOY",
    "KEY", "KIT", "LAP", "LEG", "LIP", "LOG", "MAP", "MIX", "MUD", "NET", "NUT", "OAK", "OIL", "OWL", "PEN", "PIG",
    "POT", "RUG", "RAG", "RED", "ROW", "SKY", "SUN", "TEA", "TOP", "TOY", "URN", "VAN", "VET", "WAX", "WEB", "YAK",
    "ZIP", "ZOO",
)  # fmt: skip
FONTS = ("DejaVuSansMono", "DejaVuSansMono-Bold")
FONT_SIZE = 26  # pixels per em: one letter is 15.7 pixels wide, about a cell
# The left upper corner of a word's box stays in these ranges (inclusive).
WORD_X = (8, 24)
WORD_Y = (8, 48)
WORD_COLOURS = ((0, 0, 0), (40, 40, 120), (120, 30, 30))

BACKGROUNDS = ((255, 255, 255), (244, 240, 228), (228, 236, 244))
