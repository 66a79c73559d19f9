"""Minimal chat templates with each family's real turn markers and image placeholder."""


def _content(image: str, trim: bool = False) -> str:
    """The parts of one message, in the order they were given; a string content is text."""
    text = "{{ content['text'] | trim }}" if trim else "{{ content['text'] }}"
    return (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}" + image + "{% elif content['type'] == 'text' %}" + text + "{% endif %}"
        "{% endfor %}{% endif %}"
    )


def _images_first(image: str, text: str) -> str:
    """The parts of one message with its images moved to the front, as the templates of llava-hf do."""
    return (
        "{% if message['content'] is string %}{% set content = {'text': message['content']} %}" + text + "{% else %}"
        "{% for content in message['content'] if content['type'] == 'image' %}" + image + "{% endfor %}"
        "{% for content in message['content'] if content['type'] == 'text' %}" + text + "{% endfor %}{% endif %}"
    )


def _turns(before: str, after: str, content: str, answer: str, start: str = "") -> str:
    loop = "{% for message in messages %}" + before + content + after + "{% endfor %}"
    return start + loop + "{% if add_generation_prompt %}" + answer + "{% endif %}"


_IM_START = "<|im_start|>{{ message['role'] }}\n"
_DEFAULT_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
_CAPITALISED = "{{ message['role'] | capitalize }}:"

QWEN = _turns(
    before=_DEFAULT_SYSTEM + _IM_START,
    content=_content("<|vision_start|><|image_pad|><|vision_end|>"),
    after="<|im_end|>\n",
    answer="<|im_start|>assistant\n",
)
# As the processor's own, which numbers the sounds.
_NUMBERED = "{% set count.value = count.value + 1 %}Audio {{ count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
QWEN_AUDIO = _turns(
    before=_DEFAULT_SYSTEM + _IM_START,
    content=_content(_NUMBERED).replace("'image'", "'audio'"),
    after="<|im_end|>\n",
    answer="<|im_start|>assistant\n",
    start="{% set count = namespace(value=0) %}",
)
# Qwen3-VL has no default system message.
QWEN3 = _turns(
    before=_IM_START,
    content=_content("<|vision_start|><|image_pad|><|vision_end|>"),
    after="<|im_end|>\n",
    answer="<|im_start|>assistant\n",
)
LLAVA = _turns(
    before="{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}",
    content=_images_first("<image>\n", "{{ content['text'] + ' ' }}"),
    after="",
    answer="ASSISTANT:",
)
LLAVA_NEXT = _turns(
    before="{% if message['role'] == 'user' %}[INST] {% endif %}",
    content=_images_first("<image>\n", "{{ content['text'] }}"),
    after="{% if message['role'] == 'user' %} [/INST]{% else %}</s>{% endif %}",
    answer="",
    start="<s>",
)
LLAVA_ONEVISION = _turns(
    before="<|im_start|>{{ message['role'] + ' ' }}",
    content=_images_first("<image>", "{{ '\n' + content['text'] }}"),
    after="<|im_end|>",
    answer="<|im_start|>assistant\n",
)
INTERNVL = _turns(
    before=_IM_START, content=_content("<IMG_CONTEXT>\n"), after="<|im_end|>\n", answer="<|im_start|>assistant\n"
)
IDEFICS3 = _turns(
    before=_CAPITALISED,
    content=_content("<image>"),
    after="<end_of_utterance>\n",
    answer="Assistant:",
    start="<|begin_of_text|>",
)
SMOLVLM = _turns(
    before=_CAPITALISED,
    content=_content("<image>"),
    after="<end_of_utterance>\n",
    answer="Assistant:",
    start="<|im_start|>",
)
GEMMA3 = _turns(
    before="<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n",
    content=_content("<start_of_image>", trim=True),
    after="<end_of_turn>\n",
    answer="<start_of_turn>model\n",
    start="{{ bos_token }}",
)
# The processor itself puts <bos> after the image and a newline after the question.
PALIGEMMA = _turns(before="", content=_images_first("<image>", "{{ content['text'] }}"), after="", answer="")
MLLAMA = _turns(
    before="<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n",
    content=_content("<|image|>"),
    after="<|eot_id|>",
    answer="<|start_header_id|>assistant<|end_header_id|>\n\n",
    start="{{ bos_token }}",
)
LLAMA = _turns(
    before="{% if message['role'] == 'user' %}[INST] {% endif %}",
    content=_content(""),
    after="{% if message['role'] == 'user' %} [/INST]{% else %}</s>{% endif %}",
    answer="",
    start="{{ bos_token }}",
)
GLM = _turns(
    before="<|{{ message['role'] }}|>\n",
    content=_content("<|begin_of_image|><|image|><|end_of_image|>"),
    after="",
    answer="<|assistant|>\n",
    start="[gMASK]<sop>",
)
MISTRAL3 = _turns(
    before="{% if message['role'] == 'user' %}[INST]{% endif %}",
    content=_content("[IMG]"),
    after="{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}",
    answer="",
    start="<s>",
)
_COHERE = (
    "<|START_OF_TURN_TOKEN|>{{ '<|USER_TOKEN|>' if message['role'] == 'user' else '<|CHATBOT_TOKEN|>' if "
    "message['role'] == 'assistant' else '<|SYSTEM_TOKEN|>' }}"
)
AYA_VISION, COHERE2_VISION = (
    _turns(
        before=_COHERE,
        content=_content(image),
        after="<|END_OF_TURN_TOKEN|>",
        answer="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        start="<BOS_TOKEN>",
    )
    for image in ("<image>", "<|IMG_PATCH|>")
)
LLAMA4 = _turns(
    before="<|header_start|>{{ message['role'] }}<|header_end|>\n\n",
    content=_content("<|image|>"),
    after="<|eot|>",
    answer="<|header_start|>assistant<|header_end|>\n\n",
    start="<|begin_of_text|>",
)
OVIS2 = _turns(before=_IM_START, content=_content("<image>\n"), after="<|im_end|>\n", answer="<|im_start|>assistant\n")
DEEPSEEK_VL = _turns(
    before=_CAPITALISED + " ",
    content=_content("<image_placeholder>"),
    after="{% if message['role'] == 'user' %}\n\n{% else %}<|end_of_sentence|>{% endif %}",
    answer="Assistant:",
    start="<|begin_of_sentence|>",
)
GEMMA4 = _turns(
    before="<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n",
    content=_content("<|image|>", trim=True),
    after="<turn|>\n",
    answer="<|turn>model\n",
    start="{{ bos_token }}",
)
