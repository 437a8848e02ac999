"""Chat messages: templates, media in their places, spelled special tokens. Layer: entrypoints over
tiny models.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_fixtures import LLMFactory, assert_idle, picture
from tiny_models import IMAGE_TOKEN_ID, ROWS_PER_IMAGE, token_ids

from mmcore import LLM, SamplingParams
from mmcore.entrypoints.chat import ChatPrompts
from mmcore.errors import MediaError, MediaFetchError, MmcoreError, ValidationError

GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
IMAGE = [IMAGE_TOKEN_ID] * ROWS_PER_IMAGE


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def user(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    return [{"role": "user", "content": content}]


def image_part(seed: int = 0) -> dict[str, Any]:
    return {"type": "image", "image": picture(seed)}


def url_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def prompts_of(llm: LLM) -> ChatPrompts:
    engine = llm.llm_engine
    return ChatPrompts(engine.get_model_config(), engine.get_tokenizer())


def chat(llm: LLM, messages: Any, **options: Any) -> Any:
    outputs = llm.chat(messages, GREEDY, use_tqdm=False, **options)
    assert_idle(llm)
    return outputs


# Text.


def test_a_conversation_becomes_the_templates_text(llama: LLM) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "a"}, "b"]},
    ]
    [output] = chat(llama, messages)
    text = "system: be brief\nuser: hi\nassistant: \nuser: a\nb\nassistant:"
    assert output.prompt == text
    assert output.prompt_token_ids == token_ids(text)


def test_several_conversations(llama: LLM) -> None:
    one, two = user("hi"), user("ho")
    together = chat(llama, [one, two])
    apart = [*chat(llama, one), *chat(llama, two)]
    assert [o.prompt for o in together] == ["user: hi\nassistant:", "user: ho\nassistant:"]
    assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in apart]


def test_the_generation_prompt_can_be_left_out(llama: LLM) -> None:
    [output] = chat(llama, user("hi"), add_generation_prompt=False)
    assert output.prompt == "user: hi\n"
    with pytest.raises(ValidationError, match="cannot both be True"):
        chat(llama, user("hi"), continue_final_message=True)


def test_a_template_of_ones_own(llama: LLM, tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert chat(llama, user("hi"), chat_template=template)[0].prompt == "[hi]"
    (tmp_path / "t.jinja").write_text(template)
    assert chat(llama, user("hi"), chat_template=str(tmp_path / "t.jinja"))[0].prompt == "[hi]"
    with pytest.raises(ValidationError, match="appears path-like"):
        chat(llama, user("hi"), chat_template=str(tmp_path / "missing.jinja"))
    with pytest.raises(ValidationError, match="refused the messages"):
        chat(llama, user("hi"), chat_template="{{ raise_exception('no system role') }}\n")


# Media.


def test_images_stay_where_they_stand(llava: LLM) -> None:
    [output] = chat(llava, user("first ", image_part(0), " then ", image_part(1), "?"))
    expected = [
        *token_ids("user: first "), *IMAGE, *token_ids(" then "), *IMAGE,
        *token_ids("?\nassistant:"),
    ]  # fmt: skip
    assert output.prompt_token_ids == expected


def test_every_way_to_give_an_image_gives_the_same(llava_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(picture(0)))
    llm = LLM(
        str(llava_folder), dtype="float32", num_gpu_blocks_override=64,
        allowed_local_media_path=str(tmp_path),
    )  # fmt: skip
    ways: list[Any] = [
        image_part(0),
        url_part(data_url(picture(0))),
        {"type": "image_url", "image_url": data_url(picture(0))},
        url_part(path.as_uri()),
    ]
    outputs = [chat(llm, user(way, "what?"))[0].outputs[0].token_ids for way in ways]
    assert outputs == [outputs[0]] * 4
    generated = llm.generate(
        [{"prompt": "user: <image>what?\nassistant:", "multi_modal_data": {"image": picture(0)}}],
        GREEDY,
        use_tqdm=False,
    )
    assert list(generated[0].outputs[0].token_ids) == outputs[0]
    assert llm.llm_engine.metrics()["items_encoded"] == 1, "the same picture was encoded again"


def test_a_template_for_strings_gets_the_placeholder(llava: LLM) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}"
    [output] = chat(llava, user("look:", image_part()), chat_template=template)
    assert output.prompt_token_ids == [*token_ids("user: look:\n"), *IMAGE]


# Spelled special tokens.


def test_a_spelled_placeholder_is_text(llava: LLM) -> None:
    [output] = chat(llava, user("is <image> a token? </s>", image_part()))
    expected = [
        *token_ids("user: is <image> a token? </s>"), *IMAGE, *token_ids("\nassistant:"),
    ]  # fmt: skip
    assert output.prompt_token_ids == expected
    [text_only] = chat(llava, user("<image>"))
    assert text_only.prompt_token_ids == token_ids("user: <image>\nassistant:")
    assert text_only.prompt == "user: <image>\nassistant:"


def test_the_marks_themselves_can_be_spelled(llava: LLM) -> None:
    text = "\ue0d10\ue0d2<image>\ue0d1"
    [output] = chat(llava, user(text))
    assert output.prompt_token_ids == token_ids(f"user: {text}\nassistant:")


# Refusals.


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([], ValidationError, "non-empty"),
        ("hi", ValidationError, "conversation"),
        ([{"content": "hi"}], ValidationError, "role"),
        ([{"role": "user"}], ValidationError, "no content"),
        ([{"role": "user", "content": 3}], ValidationError, "string or a list"),
        ([{"role": "user", "content": [3]}], ValidationError, "dictionary"),
        (user({"type": "smell"}), ValidationError, "unknown type 'smell'"),
        (user({"type": "text"}), ValidationError, "must be a string"),
        (user({"type": "image"}), ValidationError, "must be an image"),
        (user({"type": "image_url", "image_url": {}}), ValidationError, "url"),
        (user(url_part("cat.png")), MediaError, None),
        (user(url_part("file:///etc/passwd")), MediaFetchError, None),
        (user(url_part("http://127.0.0.1:1/x.png")), MediaFetchError, None),
        (user(url_part("data:image/png;base64,AAAA")), MediaError, None),
        (user(*[url_part("http://127.0.0.1:1/x.png")] * 3), MediaError, "At most 2 image"),
    ],
)
def test_bad_messages(
    llava: LLM, messages: Any, error: type[MmcoreError], message: str | None
) -> None:
    with pytest.raises(error, match=message):
        chat(llava, messages)
    [output] = chat(llava, user("fine"))
    assert output.error is None


def test_a_bad_conversation_among_good_ones(llava: LLM) -> None:
    outputs = chat(llava, [user("a"), user({"type": "smell"}), user("b")], errors="return")
    assert [o.error is None for o in outputs] == [True, False, True]
    assert outputs[0].outputs[0].token_ids == chat(llava, user("a"))[0].outputs[0].token_ids


def test_images_for_a_text_model_are_not_even_fetched(llama: LLM) -> None:
    with pytest.raises(MediaError) as caught:
        chat(llama, user(url_part("http://127.0.0.1:1/x.png")))
    assert caught.value.code == "images_not_supported"


def test_a_model_without_a_template(make_llama: LLMFactory, llama_folder: Path) -> None:
    llm = make_llama()
    llm.get_tokenizer().chat_template = None  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="must provide a chat template"):
        chat(llm, user("hi"))
    assert prompts_of(llm).render(user("hi"), chat_template="{{ messages[0].content }}")
