"""Conversations in the web chat."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from chat_page import Chat
from toy_model import ToyModel

expect = pytest.importorskip("playwright.sync_api", reason="the web chat's tests need playwright").expect

MARKDOWN = "# Title\n\nSome **bold** words, `code` and $x^2$.\n\n```python\nprint('hi')\n```\n\n* one\n* two\n"


@pytest.fixture
def slow(model: ToyModel) -> ToyModel:
    """An answer that takes its time, and never ends by itself."""
    model.speak("on and on ", then_end=False)
    model.before_step = lambda: time.sleep(0.01)
    return model


def test_a_conversation(chat: Chat, model: ToyModel) -> None:
    model.speak(MARKDOWN)
    answer = chat.open().ask_and_wait("Tell me <b>something</b>")
    expect(chat.page.locator(".question .body")).to_have_text("Tell me <b>something</b>")
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("pre .hljs-string")).to_have_text("'hi'")
    expect(answer.locator(".katex-html")).to_contain_text("x2")
    expect(answer.locator("li", has_text="two")).to_be_visible()
    meter = answer.locator(".meter")
    expect(meter).to_contain_text(f"{len('user:Tell me <b>something</b>') + 3} prompt tokens")
    expect(meter).to_contain_text(f"{len(MARKDOWN) + 1} answer tokens")
    expect(meter).to_contain_text(re.compile(r"\d tokens/s.*first after \d\.\d\d s"))
    expect(chat.page).to_have_title("Tell me <b>something</b> · Seamount")
    chat.ask_and_wait("Once more")
    expect(chat.page.locator(".message")).to_have_count(4)


def test_the_whole_conversation_is_sent(chat: Chat) -> None:
    chat.scripted().open()
    set_field(chat, "System prompt", "Be brief.")
    chat.ask("One")
    chat.feed(reasoning_content="hidden")
    chat.feed(content="1")
    chat.end_feed()
    chat.ask("Two")
    sent = chat.page.evaluate("sent")
    roles = [(message["role"], message["content"]) for message in sent["messages"]]
    assert roles == [("system", "Be brief."), ("user", "One"), ("assistant", "1"), ("user", "Two")]
    assert (sent["model"], sent["stream"], sent["stream_options"]) == ("org/toy", True, {"include_usage": True})
    assert sent["temperature"] == 0.6
    assert not {"top_p", "max_tokens", "seed", "thinking", "n"} & set(sent)


def test_settings_are_sent_and_kept(chat: Chat) -> None:
    chat.scripted().open()
    for label, value in (("Temperature", "0.5"), ("Top-p", "0.9"), ("Most tokens", "7"), ("Seed", "0")):
        set_field(chat, label, value)
    chat.page.reload()
    chat.ask("Hi")
    sent = chat.page.evaluate("sent")
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]) == (0.5, 0.9, 7, 0)


def test_an_impossible_setting_is_not_taken(chat: Chat) -> None:
    chat.open()
    set_field(chat, "Temperature", "-1")
    expect(chat.page.get_by_role("dialog")).to_be_visible()
    assert chat.page.get_by_label("Temperature").evaluate("field => field.validationMessage")


def test_thinking_can_be_chosen_where_the_model_says_so(chat: Chat) -> None:
    card = {"id": "thinker", "object": "model", "seamount": {"can_think": True}}
    chat.page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [card]}))
    chat.scripted().open()
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_label("Thinking").select_option("off")
    chat.page.get_by_role("button", name="Done").click()
    chat.ask("Hi")
    assert chat.page.evaluate("sent.thinking") == {"type": "disabled"}


def test_it_cannot_be_chosen_elsewhere(chat: Chat) -> None:
    chat.open().page.get_by_role("button", name="Settings").click()
    expect(chat.page.get_by_label("Temperature")).to_be_visible()
    expect(chat.page.get_by_label("Thinking")).to_be_hidden()


def test_models_are_chosen_by_name(chat: Chat) -> None:
    cards = [{"id": "small"}, {"id": "large"}]
    chat.page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": cards}))
    chat.scripted().open()
    chat.page.get_by_label("Model", exact=True).select_option("large")
    chat.ask("Hi")
    assert chat.page.evaluate("sent.model") == "large"
    chat.page.reload()
    expect(chat.page.get_by_label("Model", exact=True)).to_have_value("large")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop(chat: Chat, slow: ToyModel, how: str) -> None:
    answer = chat.open().ask("Hi")
    expect(answer.locator(".body")).to_contain_text("on and on")
    if how == "button":
        chat.page.get_by_role("button", name="Stop").click()
    else:
        chat.page.keyboard.press("Escape")
    expect(answer.locator(".note")).to_have_text("Stopped.")
    expect(chat.page.get_by_label("Message", exact=True)).to_be_focused()
    text = answer.locator(".body").inner_text()
    assert "on and on" in text
    slow.come_to_rest()
    assert answer.locator(".body").inner_text() == text


def test_a_reload_keeps_the_conversation(chat: Chat, model: ToyModel) -> None:
    model.speak(MARKDOWN)
    before = chat.open().ask_and_wait("Hi").locator(".body").inner_html()
    meter = chat.answer.locator(".meter").inner_text()
    chat.page.reload()
    expect(chat.answer.get_by_role("heading", name="Title")).to_be_visible()
    assert chat.answer.locator(".body").inner_html() == before
    assert chat.answer.locator(".meter").inner_text() == meter


def test_a_reload_within_an_answer_keeps_what_had_come(chat: Chat, slow: ToyModel) -> None:
    answer = chat.open().ask("Hi")
    expect(answer.locator(".body")).to_contain_text("on and on on")
    chat.page.reload()
    expect(chat.answer.locator(".body")).to_contain_text("on and on on")
    expect(chat.answer.locator(".note")).to_contain_text("The page was closed")
    slow.before_step = lambda: None
    slow.speak("Whole.")
    chat.answer.get_by_role("button", name="Try again").click()
    expect(chat.answer.locator(".body")).to_have_text("Whole.")
    expect(chat.answer.locator(".place")).to_have_text("2 / 2")


def test_asking_again_adds_a_version(chat: Chat, model: ToyModel) -> None:
    model.speak("First.")
    chat.open().ask_and_wait("Hi")
    model.speak("Second.")
    chat.answer.get_by_role("button", name="Answer again").click()
    expect(chat.answer.locator(".body")).to_have_text("Second.")
    chat.wait_for_end()
    chat.answer.get_by_role("button", name="Previous version").click()
    expect(chat.answer.locator(".body")).to_have_text("First.")
    expect(chat.answer.locator(".place")).to_have_text("1 / 2")
    expect(chat.answer.get_by_role("button", name="Copy answer")).to_be_focused()
    chat.page.reload()
    expect(chat.answer.locator(".body")).to_have_text("First.")


def test_editing_a_message_forks_from_there(chat: Chat, model: ToyModel) -> None:
    chat.open().ask_and_wait("One")
    chat.ask_and_wait("Two")
    question = chat.page.locator(".question").first
    question.hover()
    question.get_by_role("button", name="Edit message").click()
    field = chat.page.get_by_role("textbox", name="Edit message")
    expect(field).to_be_focused()
    model.speak("Other.")
    field.fill("Uno")
    field.press("Enter")
    expect(chat.answer.locator(".body")).to_have_text("Other.")
    expect(chat.page.locator(".question .body")).to_have_text(["Uno"])
    chat.wait_for_end()
    question = chat.page.locator(".question").first
    question.hover()
    question.get_by_role("button", name="Previous version").click()
    expect(chat.page.locator(".question .body")).to_have_text(["One", "Two"])


def test_reasoning_is_open_while_it_lasts(chat: Chat) -> None:
    chat.scripted().open()
    answer = chat.ask("Hi")
    chat.feed(reasoning_content="Let me *think*")
    expect(answer.locator("details")).to_have_attribute("open", "")
    expect(answer.locator("summary")).to_have_text("Thinking")
    expect(answer.locator("details em")).to_have_text("think")
    chat.feed(content="The answer")
    expect(answer.locator("details")).not_to_have_attribute("open", "")
    expect(answer.locator("summary")).to_have_text(re.compile(r"Thought for \d+\.\d s"))
    answer.locator("summary").click()
    chat.feed(content=" goes on")
    expect(answer.locator(".body")).to_have_text("The answer goes on")
    expect(answer.locator("details")).to_have_attribute("open", "")
    chat.end_feed()
    chat.page.reload()
    expect(chat.answer.locator("summary")).to_have_text(re.compile(r"Thought for \d+\.\d s"))
    expect(chat.answer.locator("details em")).to_be_hidden()


def test_the_meter_shows_what_the_server_tells(chat: Chat) -> None:
    told = {"price": 0.0001234, "currency": "EUR", "seconds": 3.0, "first_token_seconds": 0.5, "compute_seconds": 1.0}
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 101,
        "prompt_cache_hit_tokens": 1152,
        "completion_tokens_details": {"reasoning_tokens": 40},
        "seamount": told,
    }
    chat.scripted().open()
    answer = chat.ask("Hi")
    chat.feed(content="Yes.")
    chat.end_feed(usage)
    assert answer.locator(".meter li").all_inner_texts() == [
        "1,200 prompt tokens, 1,152 from cache",
        "101 answer tokens, 40 reasoning",
        "40 tokens/s",
        "first after 0.50 s",
        "€0.000123",
    ]


def test_an_answer_that_was_cut_says_so(chat: Chat) -> None:
    chat.scripted().open()
    answer = chat.ask("Hi")
    chat.feed(content="Yes and")
    chat.end_feed(finish_reason="length")
    expect(answer.locator(".note")).to_contain_text("limit of tokens")


def test_a_lost_connection_keeps_what_came(chat: Chat) -> None:
    chat.scripted().open()
    for how in ("breakFeed()", "endFeed()"):
        answer = chat.ask("Hi")
        chat.feed(content="Half an ans")
        expect(answer.locator(".body")).to_have_text("Half an ans")
        chat.page.evaluate(how)
        expect(answer.locator(".note")).to_contain_text("What had arrived is kept.")
        expect(answer.locator(".body")).to_have_text("Half an ans")
        expect(answer.get_by_role("button", name="Try again")).to_be_visible()


def test_a_failure_within_the_stream_is_told(chat: Chat) -> None:
    chat.scripted().open()
    answer = chat.ask("Hi")
    chat.feed(content="Half")
    chat.feed_event({"error": {"message": "the server is stopping"}})
    expect(answer.locator(".note.failed")).to_contain_text("the server is stopping")
    expect(answer.locator(".body")).to_have_text("Half")


def test_a_refusal_is_told_and_can_be_tried_again(chat: Chat, model: ToyModel) -> None:
    refusal = {"error": {"message": "too many requests", "type": "rate_limit"}}
    chat.open()
    chat.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, json=refusal, headers={"Retry-After": "7"}),
        times=1,
    )
    answer = chat.ask("Hi")
    expect(answer.locator(".note")).to_contain_text("too many requests (try again in 7 s)")
    answer.get_by_role("button", name="Try again").click()
    expect(chat.answer.locator(".body")).to_have_text("Grüße ☃!")
    expect(chat.page.locator(".message")).to_have_count(2)
    expect(chat.answer.locator(".place")).to_have_count(0)


def test_the_servers_own_refusal_is_told(chat: Chat) -> None:
    chat.open()
    set_field(chat, "Most tokens", "5000")
    expect(chat.ask("Hi").locator(".note.failed")).to_contain_text("4096")


def test_a_key_is_asked_for_when_the_server_wants_one(chat: Chat) -> None:
    keys: list[str | None] = []

    def guard(route: Any) -> None:
        keys.append(route.request.headers.get("authorization"))
        if keys[-1] == "Bearer sk-1":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"message": "a key is needed"}})

    chat.page.route("**/v1/**", guard)
    chat.page.goto(chat.url)
    chat.page.get_by_label("This server asks for a key").fill("sk-1")
    chat.page.get_by_role("button", name="Use it").click()
    expect(chat.page.locator("#key-form")).to_be_hidden()
    expect(chat.ask_and_wait("Hi").locator(".body")).to_have_text("Grüße ☃!")
    assert keys == [None, "Bearer sk-1", "Bearer sk-1"]
    chat.page.reload()
    expect(chat.page.get_by_label("Model", exact=True)).to_have_value("org/toy")
    assert keys[-1] == "Bearer sk-1"


def test_conversations_are_listed_found_renamed_and_deleted(chat: Chat) -> None:
    page = chat.open().page
    chat.ask_and_wait("About whales")
    page.keyboard.press("Control+Shift+O")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    chat.ask_and_wait("About stars")
    titles = page.locator("#list .open")
    expect(titles).to_have_text(["About stars", "About whales"])
    page.keyboard.press("Control+k")
    page.keyboard.type("WHALE")
    expect(titles).to_have_text(["About whales"])
    titles.first.click()
    expect(page.locator(".question .body")).to_have_text("About whales")
    page.get_by_label("Find a conversation").fill("")
    row = page.locator("#list li", has_text="About whales")
    row.hover()
    row.get_by_role("button", name="Rename").click()
    page.keyboard.type("Cetacea")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Cetacea")
    row = page.locator("#list li", has_text="Cetacea")
    row.hover()
    row.get_by_role("button", name="Delete").click()
    expect(titles).to_have_text(["About stars"])
    expect(page.locator(".empty")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".question .body")).to_have_text("About whales")
    page.reload()
    expect(titles).to_have_text(["About stars", "Cetacea"])


def test_an_answer_goes_on_while_another_conversation_is_shown(chat: Chat, slow: ToyModel) -> None:
    page = chat.open().page
    expect(chat.ask("Long").locator(".body")).to_contain_text("on and")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".empty")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    slow.before_step = lambda: None
    slow.speak("on and on and out.")
    page.locator("#list .open", has_text="Long").click()
    chat.wait_for_end()
    expect(chat.answer.locator(".body")).to_contain_text("out.")


def test_conversations_can_be_taken_along(chat: Chat) -> None:
    page = chat.open().page
    chat.ask_and_wait("About whales")
    row = page.locator("#list li")
    row.hover()
    with page.expect_download() as download:
        row.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == "About-whales.md"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text == "# About whales\n\n## You\n\nAbout whales\n\n## org/toy\n\nGrüße ☃!\n"
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    (conversation,) = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["conversations"]
    assert [node["text"] for node in conversation["nodes"].values()] == ["About whales", "Grüße ☃!"]


def test_copying(chat: Chat, model: ToyModel) -> None:
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    model.speak(MARKDOWN)
    answer = chat.open().ask_and_wait("Hi")
    answer.get_by_role("button", name="Copy answer").click()
    expect(chat.page.locator(".toast")).to_contain_text("Copied.")
    assert chat.page.evaluate("navigator.clipboard.readText()") == MARKDOWN
    answer.get_by_role("button", name="Copy code").click()
    expect(answer.locator(".copy-code")).to_contain_text("Copied")
    assert chat.page.evaluate("navigator.clipboard.readText()") == "print('hi')\n"


def test_two_tabs_see_each_others_conversations(chat: Chat) -> None:
    other = Chat(chat.open().page.context.new_page(), chat.url).open()
    chat.ask_and_wait("From the first")
    expect(other.page.locator("#list .open")).to_have_text("From the first")
    other.check()


def set_field(chat: Chat, label: str, value: str) -> None:
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("dialog").get_by_label(label).fill(value)
    chat.page.get_by_role("button", name="Done").click()
