"""The LoRA configuration: exactly the named modules, PEFT's fields as they are, equal parameter counts on request."""

import logging

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLMoeConfig

from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.models.discover import discover
from vfl.train.adapter.lora import build_lora
from vfl.train.adapter.lora_rank import alpha_at, count_parameters
from vfl.train.adapter.towers import target_names, tower_of
from vfl.train.export.meta_model import identify_model, meta_model, meta_model_of
from vfl.train.layers.choice import chosen_layers, read_choice

FAMILIES = sorted(tiny.FAMILIES)
# What FACTS.md says of each family, written out: the test must not take it from the code that it tests.
DECODER = dict.fromkeys(FAMILIES, "model.language_model") | dict.fromkeys(("idefics3", "smolvlm"), "model.text_model")
INSIDE = [
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
CLIP = ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"]
INTERN = [*(f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "projection_layer")), "mlp.fc1", "mlp.fc2"]
QWEN2 = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
QWEN2_5 = ["attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
QWEN3 = ["attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"]
LLAVA_PROJECTOR = [f"model.multi_modal_projector.linear_{i}" for i in (1, 2)]
BLOCKS = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision"), ("model.vision_tower.encoder.layers", CLIP)),
    **dict.fromkeys(("gemma3", "paligemma"), ("model.vision_tower.encoder.layers", CLIP)),
    **dict.fromkeys(("idefics3", "smolvlm"), ("model.vision_model.encoder.layers", CLIP)),
    "internvl": ("model.vision_tower.encoder.layer", INTERN),
    "qwen2_vl": ("model.visual.blocks", QWEN2),
    "qwen2_5_vl": ("model.visual.blocks", QWEN2_5),
    "qwen3_vl": ("model.visual.blocks", QWEN3),
}
PROJECTOR = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "internvl"), LLAVA_PROJECTOR),
    "gemma3": [],
    "paligemma": ["model.multi_modal_projector.linear"],
    "idefics3": ["model.connector.modality_projection.proj"],
    "smolvlm": ["model.connector.modality_projection.proj"],
    "qwen2_vl": [f"model.visual.merger.mlp.{i}" for i in (0, 2)],
    "qwen2_5_vl": [f"model.visual.merger.mlp.{i}" for i in (0, 2)],
    "qwen3_vl": [
        f"model.visual.{merger}.linear_fc{i}"
        for merger in ("merger", "deepstack_merger_list.0", "deepstack_merger_list.1")
        for i in (1, 2)
    ],
}
ARMS = {
    "function": ({"list": [1, 2]}, lambda total: [1, 2]),
    "full": ("full", lambda total: list(range(total))),
    "reversed": ({"list": [1, 2], "arm": "reversed"}, lambda total: [0, *range(3, total)]),
    "random": ({"list": [1, 2], "arm": "random", "seed": 3}, None),
}


@pytest.fixture
def empty(tiny_folder):
    return lambda family: meta_model(tiny_folder(family))


def adapted(model, config):
    """The modules that PEFT really adapts."""
    return [
        name.removeprefix("base_model.model.")
        for name, module in get_peft_model(model, config).named_modules()
        if isinstance(module, LoraLayer)
    ]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_adapts_exactly_its_modules(empty, family, arm):
    model = empty(family)
    identity = identify_model(model, hashed=False)
    written, expected = ARMS[arm]
    layers = chosen_layers(read_choice(written), identity)
    if expected is None:
        assert len(layers) == 2
    else:
        assert layers == expected(identity.num_layers)
    config = build_lora(model, layers, {"r": 2})
    names = [f"{DECODER[family]}.layers.{layer}.{name}" for layer in layers for name in INSIDE]
    assert config.target_modules == set(names)
    assert sorted(adapted(model, config)) == sorted(names)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_towers_are_adapted_when_asked_and_only_then(empty, family, caplog):
    model = empty(family)
    own = target_names(model, [1], ["q_proj"])
    assert own == [f"{DECODER[family]}.layers.1.self_attn.q_proj"]
    build_lora(model, [1], match_rank=True)
    assert not caplog.records
    stem, names = BLOCKS[family]
    vision = [f"{stem}.{block}.{name}" for block in (0, 1) for name in names]
    assert target_names(model, [1], ["q_proj"], ["vision"]) == own + vision
    build_lora(model, [1], {"r": 2}, also=["vision"], match_rank=True)
    assert caplog.text.count("modules of the vision are adapted") == 1
    if PROJECTOR[family]:
        assert target_names(model, [1], ["q_proj"], ["projector"]) == own + PROJECTOR[family]
        both = build_lora(model, [1], {"target_modules": ["q_proj"], "r": 2}, also=["vision", "projector"])
        assert sorted(adapted(model, both)) == sorted(own + vision + PROJECTOR[family])
    else:
        with pytest.raises(InputError, match=r"no Linear module of it was found .*mm_input_projection_weight"):
            target_names(model, [1], ["q_proj"], ["projector"])


@pytest.mark.parametrize("family", FAMILIES)
def test_each_module_knows_its_tower(empty, family):
    model = empty(family)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    towers = tower_of(model, names)
    assert {name for name in names if towers[name] == "projector"} == set(PROJECTOR[family])
    assert {name for name in names if towers[name] == "other"} == {"lm_head"}
    assert all(name.startswith(DECODER[family]) for name in names if towers[name] == "language")
    assert all(name.startswith(BLOCKS[family][0]) for name in names if towers[name] == "vision")


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_not_needed(empty, tiny_folder, family):
    loaded = AutoModelForImageTextToText.from_pretrained(tiny_folder(family))
    model = empty(family)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in loaded.named_parameters()]
    arguments = ([1, 3], {"r": 4, "use_dora": True})
    assert build_lora(model, *arguments, match_rank=True) == build_lora(loaded, *arguments, match_rank=True)


def test_the_papers_counts():
    """161.5 and 80.7 million trainable parameters in 28 and in 14 layers of Qwen2.5-VL-7B at rank 64."""
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 1000,
    }
    model = meta_model_of(Qwen2_5_VLConfig(text_config=text, vision_config={"depth": 1}))
    identity = ModelId(id="7b", family="Qwen2.5-VL", num_layers=28)
    fourteen, twelve = (
        chosen_layers(read_choice({"preset": f"qwen2.5-vl-7b/{name}"}), identity) for name in ("10-23", "10-17,20-23")
    )
    assert count_parameters(model, build_lora(model, range(28))) == 161_480_704
    assert count_parameters(model, build_lora(model, fourteen)) == 80_740_352
    matched = build_lora(model, fourteen, match_rank=True)
    assert (matched.r, matched.lora_alpha) == (128, 64)
    assert count_parameters(model, matched) == 161_480_704
    matched = build_lora(model, twelve, match_rank=True)
    assert matched.r == 149  # 64 * 28 / 12 = 149.3
    assert abs(count_parameters(model, matched) / 161_480_704 - 1) < 0.005


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"rank_pattern": {"q_proj": 3}},
        {"target_modules": "all-linear"},
        {"target_modules": ["self_attn.q_proj", "down_proj"]},
        {"exclude_modules": ["o_proj"]},
        {"modules_to_save": ["model.language_model.norm"]},
    ],
    ids=str,
)
def test_the_count_is_pefts(tiny_folder, options):
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder("qwen2_vl"))
    config = build_lora(model, [1, 2, 4], {"r": 4, **options})
    count = count_parameters(model, config)
    peft_model = get_peft_model(model, config)
    assert count == sum(p.numel() for p in peft_model.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}, {"bias": "lora_only"}], ids=str)
@pytest.mark.parametrize("layers", [[2], [1, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]])
def test_matched_arms_are_as_close_as_whole_ranks_allow(empty, layers, options):
    model = empty("qwen2_vl")
    options_of_both = {"r": 6, "lora_alpha": 12, **options}
    target = count_parameters(model, build_lora(model, range(5), options_of_both))
    plain = build_lora(model, layers, options_of_both)
    matched = build_lora(model, layers, options_of_both, match_rank=True)
    assert plain.r == 6
    if len(layers) == 5:
        assert matched == plain
    distances = {
        rank: abs(count_parameters(model, build_lora(model, layers, options_of_both | {"r": rank})) - target)
        for rank in range(max(1, matched.r - 2), matched.r + 3)
    }
    assert distances[matched.r] == min(distances.values())


@pytest.mark.parametrize("rslora", [False, True])
def test_another_rank_learns_as_fast_at_the_same_rate(rslora):
    """A step of Adam on a row changes what the layer puts out for it as much at ranks 8 to 128; at alpha = r not."""

    def moved(rank, alpha):
        return sum(step(rank, alpha, seed) for seed in range(8))

    def step(rank, alpha, seed):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"])
        model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(256, 256)), config)
        x, wanted = torch.randn(1, 256), torch.randn(1, 256)
        before = model(x).detach()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
        torch.nn.functional.mse_loss(model(x), wanted).backward()
        optimizer.step()
        return float((model(x) - before).norm())

    reached = [moved(rank, alpha_at(rank, 16, 16, rslora=rslora)) for rank in (8, 32, 128)]
    assert max(reached) < 1.25 * min(reached), reached
    assert moved(128, 128) > (3 if rslora else 10) * moved(8, 8)


def test_fields_of_peft_pass_through(empty):
    model = empty("qwen2_vl")
    fields = {
        "r": 8,
        "lora_alpha": 24,
        "lora_dropout": 0.2,
        "use_dora": True,
        "use_rslora": True,
        "init_lora_weights": "gaussian",
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 2},
        "task_type": "CAUSAL_LM",
    }
    config = build_lora(model, [1, 2], fields)
    assert {name: getattr(config, name) for name in fields} == fields
    ranks = {
        name.removeprefix("base_model.model."): module.r["default"]
        for name, module in get_peft_model(model, config).named_modules()
        if isinstance(module, LoraLayer)
    }
    assert {rank for name, rank in ranks.items() if "q_proj" in name} == {4}
    assert {rank for name, rank in ranks.items() if "q_proj" not in name} == {8}


def test_the_papers_recipe_is_the_default(empty):
    config = build_lora(empty("llava"), [1])
    assert (config.r, config.lora_alpha, config.lora_dropout) == (64, 64, 0.05)
    assert build_lora(empty("llava"), [1], {"r": 8}).lora_alpha == 8
    assert build_lora(empty("llava"), [1], {"r": 8, "lora_alpha": 64}).lora_alpha == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers_to_transform": [1]}, "layers_to_transform conflicts with `layers`"),
        ({"layers_pattern": "layers"}, "layers_pattern conflicts with `layers`"),
        ({"rank": 8}, "lora.rank is no field of PEFT's LoraConfig; known are .*lora_alpha.* r,"),
        ({"r": 0}, "lora.r is 0|PEFT refuses"),
        ({"r": "8"}, "lora.r is '8'"),
        ({"target_modules": ["w1"]}, "No layer of 1 to 2 of .* has a Linear module 'w1'; layer 1 has self_attn.q_proj"),
        ({"target_modules": ["input_layernorm"]}, "has a Linear module 'input_layernorm'"),
        ({"target_modules": ["lm_head"]}, "lm_head. Adapters of the output head are refused"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": ".*q_proj"}, "expected a list of names inside a layer"),
        ({"exclude_modules": ["mlp", *INSIDE]}, "leaves no module to adapt"),
        ({"exclude_modules": ".*"}, "expected a list of module names"),
        ({"modules_to_save": ["lm_head"]}, "A trained output head is refused"),
        ({"modules_to_save": ["ln_q"]}, r"also reaches model.visual.merger.ln_q in the projector"),
        ({"modules_to_save": ["visual"]}, "also reaches model.visual in the vision"),
        ({"modules_to_save": ["nothing"]}, "no such module"),
        ({"rank_pattern": {"w1": 3}}, "lora.rank_pattern has 'w1', which fits none of the 14 adapted modules"),
        ({"init_lora_weights": "pissa_niter_4"}, "random decomposition.*use pissa"),
        ({"init_lora_weights": "eva"}, "needs a pass over the data"),
        ({"bias": "all"}, "the vision tower's included"),
        ({"target_parameters": ["experts.down_proj"]}, "allow no dropout"),
        ({"target_parameters": ["experts.down_proj"], "lora_dropout": 0}, "no layer has a parameter"),
        ({"use_dora": True, "lora_bias": True}, "PEFT refuses these lora settings: .*lora_bias"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(empty, options, message):
    with pytest.raises(InputError, match=message):
        build_lora(empty("qwen2_5_vl"), [1, 2], options)


def test_other_refusals(empty):
    model = empty("llava")
    with pytest.raises(InputError, match="also_adapt names audio; expected vision or projector"):
        build_lora(model, [1], also=["audio"])
    with pytest.raises(InputError, match="rank_pattern or alpha_pattern sets them one by one"):
        build_lora(model, [1], {"rank_pattern": {"q_proj": 3}}, match_rank=True)
    config = build_lora(model, [1])
    get_peft_model(model, config)
    with pytest.raises(InputError, match="has an adapter on it already"):
        build_lora(model, [1])


def test_the_match_is_told(empty, caplog):
    with caplog.at_level(logging.INFO, "vfl"):
        build_lora(empty("qwen2_vl"), [1, 2], {"r": 4}, match_rank=True)
    assert "rank 4 -> 10, 13,440 trainable parameters (all layers at rank 4: 13,440)" in caplog.text


@pytest.fixture(scope="module")
def mixture():
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": rope}
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "vocab_size": 100, **heads, **experts}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    return lambda: meta_model_of(
        Qwen3VLMoeConfig(text_config=text, vision_config=vision | {"deepstack_visual_indexes": [0]})
    )


def test_experts_are_explained_and_can_be_adapted(mixture):
    attention = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")]
    with pytest.raises(InputError, match=r"experts are parameters .*target_parameters: \[mlp.experts.gate_up_proj"):
        build_lora(mixture(), [1, 2])
    model = mixture()
    options = {
        "r": 2,
        "target_modules": attention,
        "target_parameters": ["mlp.experts.gate_up_proj", "experts.down_proj"],
        "lora_dropout": 0,
    }
    config = build_lora(model, [1, 2], options)
    stem = "model.language_model.layers"
    assert config.target_modules == {f"{stem}.{layer}.{name}" for layer in (1, 2) for name in attention}
    experts = [f"{stem}.{layer}.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj") for layer in (1, 2)]
    assert sorted(config.target_parameters) == sorted(experts)
    count = count_parameters(model, config)
    layers = {discover(model).layers[layer] for layer in (1, 2)}
    peft_model = get_peft_model(model, config)
    assert count == sum(p.numel() for p in peft_model.parameters() if p.requires_grad)
    assert count == sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad)
