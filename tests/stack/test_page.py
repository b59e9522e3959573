"""The chat page: a conversation in a real browser, by keyboard, in both languages, and when things go wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Route, expect

from tests.fake_vertex import FakeVertex
from tests.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.stack.browser import ChatPage, chromium, tab, visit, window
from tests.stack.harness import Chain, standalone, vertex_env

TIRED = "I keep getting the same bug and I'm so tired of it!"
CODE = "How do I structure the modules of a parser?"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ion(browser: Browser, _vertex: FakeVertex) -> AsyncIterator[Chain]:
    async with standalone(vertex_env({"us-central1": _vertex.endpoint})) as chain:
        yield chain


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with window(browser) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def chat(context: BrowserContext, ion: Chain, vertex: FakeVertex) -> AsyncIterator[ChatPage]:
    async with tab(context, ion.url) as page:
        yield page


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(
    browser: Browser, _vertex: FakeVertex, issuer: SigningKey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chain]:
    """Lets in who has a token, a few times an hour, and remembers nothing since its database is away."""
    keys = tmp_path_factory.mktemp("keys") / "jwks.json"
    keys.write_bytes(key_set(issuer))
    auth = {"ION_AUTH": "jwt", "ION_JWT_ISSUER": ISSUER, "ION_JWT_AUDIENCE": AUDIENCE, "ION_JWT_JWKS": str(keys)}
    limits = {"ION_RATE_LIMIT": "20/hour", "DATABASE_URL": "postgresql+asyncpg://ion@127.0.0.1:1/ion"}
    async with standalone(vertex_env({"us-central1": _vertex.endpoint}) | auth | limits) as chain:
        yield chain


@pytest.fixture(scope="module")
def issuer() -> SigningKey:
    return SigningKey("one")


async def test_text_grows_as_it_comes(chat: ChatPage, vertex: FakeVertex, unique: Callable[[str], str]) -> None:
    vertex.pieces(["Once\n\n", "upon ", "a time."])
    vertex.hold_after_pieces(1)
    await chat.type(unique(TIRED))
    await expect(chat.text).to_have_text("Once")
    await chat.text.locator("p").evaluate("node => { node.selected = true }")
    await expect(chat.reply).to_have_attribute("aria-busy", "true")
    await expect(chat.reply.get_by_role("heading", name="Lua")).to_be_visible()
    await expect(chat.page.locator("#announcements")).to_be_empty()
    vertex.release()
    await expect(chat.text.locator("p")).to_have_text(["Once", "upon a time."])
    assert await chat.text.locator("p").first.evaluate("node => node.selected")
    await expect(chat.reply).not_to_have_attribute("aria-busy", "true")
    await expect(chat.page.locator("#announcements")).to_have_text("Lua answered: Once upon a time.")
    await expect(chat.field).to_be_focused()


async def test_says_who_answers_and_why(chat: ChatPage, unique: Callable[[str], str]) -> None:
    await chat.say(unique(TIRED))
    await expect(chat.reply.locator(".reason")).to_contain_text("give Lua")
    await expect(chat.reply.locator("img")).to_have_attribute("src", re.compile(r"/assets/lua\.\w+\.svg$"))
    panel = await chat.explain()
    meters = panel.get_by_role("meter")
    assert set(await meters.evaluate_all("all => all.map(one => one.ariaLabel)")) == {
        *("Lua", "Elro", "Riri", "Nana"),
        *("Tone", "Pace", "Intent"),
    }
    elro = panel.get_by_role("meter", name="Elro")
    share = float(await elro.get_attribute("aria-valuenow") or "nan")
    assert 0.1 < share < 0.9
    drawn = "bar => parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth"
    assert await elro.evaluate(drawn) == pytest.approx(share, abs=0.01)
    await expect(panel).to_contain_text("frustrated")
    for fact in ("gemini-3.5-flash", "us-central1", "Tokens", "Cost", "Reading", "Choosing", "First words"):
        await expect(panel).to_contain_text(fact)


async def test_same_message_comes_from_the_cache(chat: ChatPage, unique: Callable[[str], str]) -> None:
    message = unique(TIRED)
    await chat.say(message)
    await expect(chat.reply.locator(".cache")).to_have_text("Newly written")
    await chat.start_new()
    await chat.say(message)
    await expect(chat.reply.locator(".cache")).to_have_text("From the cache")


async def test_picked_persona_answers(chat: ChatPage, unique: Callable[[str], str]) -> None:
    await chat.field.focus()
    await chat.page.keyboard.press("Tab")
    await expect(chat.page.get_by_role("radio", name="Automatic")).to_be_focused()
    await chat.page.get_by_role("radio", name="Riri").press("Space")
    await chat.say(unique(TIRED))
    await expect(chat.reply.get_by_role("heading", name="Riri")).to_be_visible()
    await expect(chat.reply.locator(".reason")).to_contain_text("who was asked for")


async def test_stopping_cancels_the_model_call(
    chat: ChatPage, vertex: FakeVertex, unique: Callable[[str], str]
) -> None:
    vertex.hold_after_pieces(1)
    await chat.type(unique(CODE))
    await expect(chat.text).not_to_be_empty()
    await chat.page.keyboard.press("Escape")
    await vertex.wait_for_outcome("cancelled")
    await expect(chat.reply).to_contain_text("You stopped this answer.")
    await expect(chat.text).not_to_be_empty()
    vertex.hang()
    await chat.button("Try again").click()
    await vertex.wait_for_calls(2)
    await chat.button("Stop (Esc)").click()
    await vertex.wait_for_outcome("cancelled", count=2)


async def test_conversations_are_listed_opened_and_deleted(chat: ChatPage, unique: Callable[[str], str]) -> None:
    first, second = unique(TIRED), unique(CODE)
    await chat.say(first)
    answer = await chat.text.inner_text()
    await chat.start_new()
    await chat.say(second)
    await expect(chat.sessions.locator(".title")).to_have_text([second, first])
    await expect(chat.sessions.get_by_role("link").first).to_have_attribute("aria-current", "page")

    await chat.sessions.get_by_role("link", name=first).click()
    await expect(chat.page.locator(".said p")).to_have_text([first])
    await expect(chat.text).to_have_text(answer)
    await expect(chat.sessions.get_by_role("link", name=first)).to_have_attribute("aria-current", "page")
    await chat.page.reload()
    await expect(chat.text).to_have_text(answer)

    async with chat.page.expect_download() as saved:
        await chat.button("Export").click()
    download = await saved.value
    assert download.suggested_filename.endswith(".jsonl")
    assert first in (await download.path()).read_text("utf-8")

    await chat.button("Delete").click()
    await chat.button("Cancel", chat.page.get_by_role("dialog")).click()
    await expect(chat.sessions).to_have_count(2)
    await chat.button("Delete").click()
    await chat.button("Delete", chat.page.get_by_role("dialog")).click()
    await expect(chat.sessions.locator(".title")).to_have_text([second])
    await expect(chat.page.locator(".welcome")).to_be_visible()


async def test_conversation_that_is_gone_already(chat: ChatPage, ion: Chain, unique: Callable[[str], str]) -> None:
    await chat.say(unique(TIRED))
    user, session = await chat.page.evaluate("localStorage.getItem('ion.user')"), chat.page.url.rpartition("=")[2]
    await ion.http.delete(f"/sessions/{session}", headers={"X-User-Id": user})
    await chat.button("Export").click()
    dialog = chat.page.get_by_role("dialog", name="This conversation is not there any more.")
    await chat.button("Close", dialog).click()
    await chat.button("Delete").click()
    await chat.button("Delete", chat.page.get_by_role("dialog")).click()
    await expect(chat.sessions).to_have_count(0)
    await expect(chat.page.locator(".welcome")).to_be_visible()


async def test_long_lists_come_in_pages(chat: ChatPage, ion: Chain, unique: Callable[[str], str]) -> None:
    user, message = await chat.page.evaluate("localStorage.getItem('ion.user')"), unique(TIRED)
    for number in range(51):
        await ion.chat(f"{message} {number}", user_id=user, session_id="long", persona="Riri")
    for number in range(30):
        await ion.chat(message, user_id=user, session_id=f"short-{number}")
    await chat.page.goto(f"{ion.url}/#c=long")
    await expect(chat.page.locator(".said")).to_have_count(50)
    await chat.button("Show earlier messages").click()
    await expect(chat.page.locator(".said p")).to_have_text([f"{message} {number}" for number in range(51)])
    await expect(chat.button("Show earlier messages")).to_have_count(0)
    await chat.page.reload()
    await expect(chat.sessions).to_have_count(30)
    await chat.button("Show more").click()
    await expect(chat.sessions).to_have_count(31)
    await expect(chat.sessions.last.locator("[aria-current]")).to_be_attached()


async def write_while_loading(chat: ChatPage, message: str, *, status: int | None = None) -> None:
    """Presses Enter before the open conversation has come, and lets it come; or be refused with the status."""
    released = asyncio.Event()

    async def hold(route: Route) -> None:
        await released.wait()
        await (route.continue_() if status is None else route.fulfill(status=status))

    await chat.page.route("**/sessions/*/messages?*", hold)
    await chat.page.reload()
    await chat.type(message)
    await expect(chat.page.locator(".said")).to_have_count(0)
    await expect(chat.page.locator("#announcements")).to_have_text("Loading the conversation…")
    await expect(chat.page.locator("#composer")).to_have_attribute("aria-busy", "true")
    await expect(chat.button("Send")).to_be_disabled()
    released.set()
    await expect(chat.button("Send")).to_be_enabled()
    await expect(chat.page.locator("#composer")).to_have_attribute("aria-busy", "false")


async def test_nothing_is_sent_while_a_conversation_loads(chat: ChatPage, unique: Callable[[str], str]) -> None:
    first, second = unique(TIRED), unique(CODE)
    await chat.say(first)
    await write_while_loading(chat, second)
    await expect(chat.page.locator(".said p")).to_have_text([first])
    await chat.button("Send").click()
    await expect(chat.page.locator(".said p")).to_have_text([first, second])
    await expect(chat.text).not_to_be_empty()


async def test_turns_are_shown_after_a_load_that_failed(chat: ChatPage, unique: Callable[[str], str]) -> None:
    first, second = unique(TIRED), unique(CODE)
    await chat.say(first)
    await write_while_loading(chat, second, status=503)
    await expect(chat.page.get_by_role("alert")).to_be_visible()
    await chat.button("Send").click()
    await expect(chat.page.locator(".said p")).to_have_text([second])
    await expect(chat.text).not_to_be_empty()


async def test_another_user_sees_none_of_it(
    chat: ChatPage, browser: Browser, ion: Chain, unique: Callable[[str], str]
) -> None:
    await chat.say(unique(TIRED))
    async with visit(browser, ion.url) as other:
        await expect(other.page.locator("#sessions .note")).to_be_visible()
        await expect(other.sessions).to_have_count(0)
        await other.page.goto(chat.page.url)
        await other.page.reload()
        await expect(other.page.get_by_role("alert")).to_have_text("This conversation is not there any more.")


async def test_an_answer_goes_on_while_one_looks_elsewhere(
    chat: ChatPage, vertex: FakeVertex, unique: Callable[[str], str]
) -> None:
    vertex.pieces(["Once ", "upon ", "a time."])
    vertex.hold_after_pieces(1)
    await chat.type(unique(TIRED))
    await expect(chat.text).to_have_text("Once")
    await chat.start_new()
    await chat.button("한국어로 보기").click()
    await chat.page.go_back()
    await expect(chat.text).to_have_text("Once")
    await expect(chat.reply.get_by_role("heading", name="루아")).to_be_visible()
    await chat.button("새 대화").click()
    vertex.release()
    await expect(chat.sessions).to_have_count(1)
    await chat.page.go_back()
    await expect(chat.text).to_have_text("Once upon a time.")


async def test_apology_and_error_are_told_apart(
    chat: ChatPage, vertex: FakeVertex, unique: Callable[[str], str]
) -> None:
    vertex.empty()
    await chat.type(unique(CODE))
    await expect(chat.reply.locator(".notice.warning")).to_contain_text("only an apology")
    await expect(chat.reply.locator(".head")).to_have_text("Nanateam coordination")

    vertex.reset()
    vertex.pieces(["Once ", "upon ", "a time."])
    vertex.fail(grpc.StatusCode.UNAVAILABLE, after_pieces=2)
    await chat.button("Try again").click()
    await expect(chat.reply.locator(".notice.error")).to_contain_text("broke off")
    await expect(chat.reply.locator(".notice.error")).to_contain_text(re.compile(r"Request \w{8}"))
    await expect(chat.text).to_have_text("Once upon")

    vertex.behave()
    await chat.button("Try again").click()
    await expect(chat.text).to_have_text("Once upon a time.")
    await expect(chat.page.locator(".notice")).to_have_count(0)
    await expect(chat.page.locator(".said")).to_have_count(1)


async def test_apology_of_the_gateway_itself(chat: ChatPage, unique: Callable[[str], str]) -> None:
    async def in_no_time(route: Route) -> None:
        await route.continue_(headers=await route.request.all_headers() | {"x-request-timeout": "0.0001"})

    await chat.page.route("**/chat", in_no_time)
    await chat.say(unique(CODE))
    await expect(chat.text).to_contain_text("I'm sorry")
    await expect(chat.reply.locator(".head")).to_have_text("Nanateam coordination")
    await expect(chat.reply.locator(".notice")).to_have_text(re.compile("only an apology.*took too long"))
    await expect(chat.reply.locator(".why-button")).to_have_count(0)


async def test_needs_nothing_that_only_https_has(chat: ChatPage, unique: Callable[[str], str]) -> None:
    await chat.page.add_init_script("delete Navigator.prototype.clipboard; delete Crypto.prototype.randomUUID")
    await chat.page.reload()
    await chat.say(unique(TIRED))
    await expect(chat.button("Copy the answer")).to_have_count(0)
    await expect(chat.reply.locator(".foot")).to_have_text(re.compile(r"^Why Lua\?Newly written[\d.]+ m?s$"))


async def test_replies_are_text_and_a_little_markdown(
    chat: ChatPage, vertex: FakeVertex, unique: Callable[[str], str]
) -> None:
    html = "<img src=x onerror=alert(1)> <b>bold</b>"
    vertex.answer(
        f"{html}\n\n# Title\n\nSome **bold** and *slanted* `code`\n\n1. one\n   - under\n2. two\n\n"
        "```python\nx = 1\n\ny = '**2**'\n```\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n2 * 3 * 4 and snake_case_name"
    )
    await chat.say(unique(CODE))
    shape = await chat.text.evaluate(
        "node => [...node.children].map(block => block.outerHTML.replace(/ (class|tabindex|role|aria-label|lang|scope)"
        '="[^"]*"/g, \'\'))'
    )
    head = "<thead><tr><th>a</th><th>b</th></tr></thead>"
    body = "<tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody>"
    assert shape == [
        "<p>&lt;img src=x onerror=alert(1)&gt; &lt;b&gt;bold&lt;/b&gt;</p>",
        "<h3>Title</h3>",
        "<p>Some <strong>bold</strong> and <em>slanted</em> <code>code</code></p>",
        "<ol><li>one<ul><li>under</li></ul></li><li>two</li></ol>",
        "<pre><code>x = 1\n\ny = '**2**'</code></pre>",
        f"<div><table>{head}{body}</table></div>",
        "<p>2 * 3 * 4 and snake_case_name</p>",
    ]


async def test_events_are_read_however_they_are_cut(chat: ChatPage) -> None:
    stream = (
        ": keep-alive\r\n\r\nevent: delta\rdata: 안녕\rdata:  b\r\rid: 1\ndata:c\n\nevent: done\n\ndata: never ended"
    )
    read = """async ([bytes, size]) => {
        const { readEvents } = await import(document.querySelector("link[href*='/sse.']").href);
        const cut = new ReadableStream({ start(all) {
            for (let at = 0; at < bytes.length; at += size) all.enqueue(new Uint8Array(bytes.slice(at, at + size)));
            all.close();
        } });
        const events = [];
        for await (const event of readEvents(cut)) events.push(event);
        return events;
    }"""
    for size in (1, 2, 3, 7, 1000):
        assert await chat.page.evaluate(read, [list(stream.encode()), size]) == [
            {"event": "delta", "data": "안녕\n b"},
            {"event": "message", "data": "c"},
        ]


async def test_enter_that_ends_a_korean_syllable_does_not_send(chat: ChatPage, vertex: FakeVertex) -> None:
    await chat.field.focus()
    devtools = await chat.page.context.new_cdp_session(chat.page)
    await devtools.send("Input.imeSetComposition", {"text": "안녕", "selectionStart": 2, "selectionEnd": 2})
    await chat.field.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await chat.field.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    await devtools.send("Input.insertText", {"text": "안녕"})
    await chat.page.keyboard.press("Shift+Enter")
    await chat.page.keyboard.type("반가워")
    await expect(chat.field).to_have_value("안녕\n반가워")
    await expect(chat.page.locator(".said")).to_have_count(0)
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator(".said p")).to_have_text("안녕\n반가워")
    await expect(chat.page.locator(".said p")).to_have_attribute("lang", "ko")


async def test_messages_have_a_limit(chat: ChatPage) -> None:
    await chat.field.fill(" " + "🌊" * 1000 + " ")
    await expect(chat.page.locator(".count")).to_have_text("1,000 / 1,000")
    await expect(chat.button("Send")).to_be_enabled()
    await chat.field.fill("🌊" * 1001)
    await expect(chat.button("Send")).to_be_disabled()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator("#announcements")).to_have_text("1 character too long")
    await expect(chat.page.locator(".said")).to_have_count(0)


async def test_language_and_theme_change_and_stay(chat: ChatPage) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = await chat.page.evaluate(background)
    await expect(chat.page.locator("html")).to_have_attribute("lang", "en")
    await chat.button("한국어로 보기").click()
    await chat.button("어두운 화면").click()
    dark = await chat.page.evaluate(background)
    assert light != dark
    await chat.page.reload()
    await expect(chat.page.locator("html")).to_have_attribute("lang", "ko")
    await expect(chat.page).to_have_title("ION 대화")
    await expect(chat.page.get_by_role("radio", name="루아")).to_be_attached()
    assert await chat.page.evaluate(background) == dark
    await chat.button("밝은 화면").click()
    assert await chat.page.evaluate(background) == light


async def test_begins_as_the_browser_is_set(browser: Browser, ion: Chain) -> None:
    async with visit(browser, ion.url, locale="ko-KR", color_scheme="dark") as korean:
        await expect(korean.page.locator("html")).to_have_attribute("lang", "ko")
        await expect(korean.button("밝은 화면")).to_be_visible()


async def test_every_control_has_a_name_and_the_keyboard_reaches_all(
    chat: ChatPage, unique: Callable[[str], str]
) -> None:
    await chat.say(unique(TIRED))
    await chat.explain()
    snapshot = await chat.page.locator("body").aria_snapshot()
    controls = r"^\s*- (?:'?)(button|link|textbox|radio|meter|navigation|complementary|region|dialog)\b(.*)$"
    nameless = [line for line in re.findall(controls, snapshot, re.M) if not line[1].startswith(' "')]
    assert nameless == []
    for landmark in ("complementary", "navigation", "main", "status"):
        assert f"- {landmark}" in snapshot
    await chat.page.get_by_role("link", name="Skip to the message field").focus()
    reached = []
    while not reached or reached[-1] != "Why Lua?":
        await chat.page.keyboard.press("Tab")
        focused = chat.page.locator(":focus")
        assert await focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        reached.append(await focused.evaluate("node => node.ariaLabel ?? node.textContent.trim()"))
        assert len(reached) < 20, reached
    title = await chat.page.locator("#title").inner_text()
    assert title in reached.pop(1)
    assert reached == [
        *(
            "New conversation",
            f"Export “{title}”",
            f"Delete “{title}”",
            "한국어로 보기",
            "Dark colours",
            "API reference",
        ),
        *("Export", "Delete", "Messages", "Why Lua?"),
    ]


async def test_slash_and_the_skip_link_lead_to_the_field(chat: ChatPage) -> None:
    await chat.button("New conversation").focus()
    await chat.page.keyboard.press("/")
    await expect(chat.field).to_be_focused()
    await chat.page.keyboard.type("1/2")
    await expect(chat.field).to_have_value("1/2")
    address = chat.page.url
    await chat.page.get_by_role("link", name="Skip to the message field").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.field).to_be_focused()
    assert chat.page.url == address


async def test_narrow_pages_have_a_drawer(browser: Browser, ion: Chain, unique: Callable[[str], str]) -> None:
    async with visit(browser, ion.url, viewport={"width": 360, "height": 640}) as chat:
        await chat.say(unique(TIRED))
        await chat.explain()
        assert await chat.page.evaluate("document.documentElement.scrollWidth") == 360
        assert await chat.page.locator("#conversation").evaluate("node => node.scrollWidth <= node.clientWidth")
        await expect(chat.button("New conversation")).to_be_hidden()
        await chat.button("Show conversations").click()
        await expect(chat.button("Hide conversations")).to_be_focused()
        await chat.field.focus()
        await expect(chat.button("Hide conversations")).to_be_focused()
        await chat.page.keyboard.press("Escape")
        await expect(chat.button("Show conversations")).to_be_focused()
        await chat.button("Show conversations").click()
        await chat.page.mouse.click(350, 300)
        await expect(chat.button("Show conversations")).to_be_focused()
        await expect(chat.button("New conversation")).to_be_hidden()


async def test_asks_for_a_key(context: BrowserContext, strict: Chain, issuer: SigningKey) -> None:
    async with tab(context, strict.url) as chat:
        dialog = chat.page.get_by_role("dialog")
        await dialog.get_by_label("API key").fill("wrong")
        await chat.page.keyboard.press("Enter")
        await expect(dialog).to_contain_text("That key was not accepted.")
        key = issuer.sign(sub="asked")
        await dialog.get_by_label("API key").fill(key)
        await chat.button("Use the key").click()
        await expect(chat.page.get_by_role("radio")).to_have_count(5)
        await expect(dialog).to_have_count(0)
        assert key not in await chat.page.evaluate("JSON.stringify(localStorage)")
        await chat.page.reload()
        await expect(chat.page.get_by_role("radio")).to_have_count(5)

        await chat.button("Forget the API key").click()
        await chat.type(TIRED)
        await chat.button("Cancel", dialog).click()
        await expect(chat.reply.locator(".notice.error")).to_contain_text("This server needs an API key.")
        await chat.button("Try again", chat.reply).click()
        await dialog.get_by_label("API key").fill(key)
        await chat.page.keyboard.press("Enter")
        await expect(chat.text).not_to_be_empty()


async def test_tells_what_is_not_remembered_and_when_to_come_back(
    context: BrowserContext, strict: Chain, issuer: SigningKey
) -> None:
    key = issuer.sign(sub="limited")
    async with tab(context, strict.url) as chat:
        await chat.page.get_by_role("dialog").get_by_label("API key").fill(key)
        await chat.page.keyboard.press("Enter")
        await expect(chat.page.locator("#sessions .note")).to_contain_text("Conversations are not available now.")
        await chat.say(TIRED)
        await expect(chat.text).not_to_be_empty()
        await expect(chat.reply.locator(".notice.info")).to_contain_text("This turn was not remembered")

        headers = {"Authorization": f"Bearer {key}"}
        while (await strict.http.get("/personas", headers=headers)).status_code != 429:
            pass
        await chat.type(TIRED)
        await expect(chat.reply.locator(".notice.error")).to_contain_text("more than is allowed")
        await expect(chat.reply.locator(".wait")).to_have_text(
            re.compile(r"You can try again in \d+ (seconds?|minutes?)\.")
        )
        await expect(chat.button("Try again", chat.reply)).to_be_disabled()
