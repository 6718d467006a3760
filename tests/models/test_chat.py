"""Loading a chat model, its template, marks on tokens, and padding."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refusal import InputError
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan
from refusal.models.tokens import INSTRUCTION, PREFIX, TEMPLATE
from refusal.prompts.planted import make_vocabulary
from refusal.prompts.prompt import Prompt


def test_tokens_before_inside_and_after_the_instruction_are_marked(planted: ChatModel, prompts: list[Prompt]):
    encoded = planted.encode(prompts[0].text)
    n = len(prompts[0].text.split())
    assert encoded.kinds.tolist() == [PREFIX, *[INSTRUCTION] * n, TEMPLATE, TEMPLATE]
    words = planted.tokenizer.convert_ids_to_tokens(encoded.ids)
    assert words == ["<user>", *prompts[0].text.split(), "<end>", "<assistant>"]
    assert encoded.n_template == 2


def test_padding_is_on_the_left_and_positions_count_from_the_first_token(planted: ChatModel):
    batch = planted.pad([planted.encode("one two three"), planted.encode("one")])
    assert batch.attention_mask.tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]
    assert batch.position_ids[1].tolist() == [0, 0, 0, 1, 2, 3]
    assert batch.last.tolist() == [5, 5]


def test_padding_can_be_on_the_right(planted: ChatModel):
    chat = replace(planted, padding_side="right")
    batch = chat.pad([chat.encode("one two three"), chat.encode("one")])
    assert batch.attention_mask.tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert batch.position_ids[1].tolist()[:4] == [0, 1, 2, 3]
    assert batch.last.tolist() == [5, 3]
    assert chat.pad([chat.encode("one")], "left").last.tolist() == [3]


def test_padded_and_unpadded_logits_agree(planted: ChatModel, prompts: list[Prompt]):
    encoded = [planted.encode(prompt.text) for prompt in prompts]
    batch = planted.pad(encoded)
    padded = planted.model(**batch.inputs()).logits[:, -1]
    alone = torch.cat([planted.model(input_ids=torch.tensor([one.ids])).logits[:, -1] for one in encoded])
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-4)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"there is no model in .*config\.json"):
        load_chat_model(tmp_path, name="x")


def test_a_model_without_chat_template_is_one_line(tmp_path: Path):
    write_planted(tmp_path, make_vocabulary(), Plan())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(InputError, match="x has no chat template"):
        load_chat_model(tmp_path, name="x")


def test_a_damaged_model_is_one_line(tmp_path: Path):
    write_planted(tmp_path, make_vocabulary(), Plan())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load the model"):
        load_chat_model(tmp_path, name="x")


def test_a_hub_model_that_is_not_here_is_one_line_when_offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/nothing is not in the cache, and the hub cannot be reached"):
        load_chat_model("nobody/nothing", name="nothing")


def test_a_model_can_be_spread_over_devices(planted: ChatModel):
    spread = load_chat_model(Path(planted.model.config._name_or_path), name="x", device_map="auto")
    assert spread.model.dtype == torch.float32
    ids = torch.tensor([planted.encode("a b").ids])
    assert torch.equal(spread.model(ids).logits, planted.model(ids).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "auto", "device": "cpu"}, "device_map=auto and model.device=cpu exclude each other"),
        ({"device": "cuda:7"}, "device=cuda:7 cannot be used here: "),
        ({"device": "gpu"}, "device=gpu cannot be used here: "),
        ({"attn_implementation": "nonsense"}, "cannot load the model .*nonsense"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_line(planted: ChatModel, options: dict[str, str], message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_chat_model(Path(planted.model.config._name_or_path), name="x", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_device_map_without_accelerate_is_one_line(planted: ChatModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="device_map=auto needs accelerate: pip install accelerate"):
        load_chat_model(Path(planted.model.config._name_or_path), name="x", device_map="auto")


def test_another_template_takes_the_place_of_the_tokenizers(planted: ChatModel):
    source = Path(planted.model.config._name_or_path)
    chat = load_chat_model(source, name="x", chat_template="<user> {{ messages[0]['content'] }} <assistant>")
    words = chat.tokenizer.convert_ids_to_tokens(chat.encode("how").ids)
    assert [words[0], words[-1], len(words)] == ["<user>", "<assistant>", 3]


def test_moving_the_folder_changes_nothing(planted: ChatModel, tmp_path: Path):
    source = Path(planted.model.config._name_or_path)
    moved = load_chat_model(Path(shutil.copytree(source, tmp_path / "moved")), name="moved")
    ids = torch.tensor([planted.encode("a b").ids])
    assert np.array_equal(planted.model(ids).logits.numpy(), moved.model(ids).logits.numpy())
