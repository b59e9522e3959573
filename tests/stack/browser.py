"""The chat page in a real Chromium, and what must hold of it all the time."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    async_playwright,
    expect,
)

# Chromium tells of every refusal of the server; the page tells of it too.
REFUSED = "Failed to load resource: the server responded with a status of"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium here: `make browser` installs it where it can")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=sandbox)
        yield browser
        await browser.close()


class ChatPage:
    """A tab of its own. Console errors, violations of the policy and requests to others are `problems`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(REFUSED):
            self.problems.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "blob:")):
            self.problems.append(f"request to {request.url}")

    @property
    def field(self) -> Locator:
        return self.page.locator("#message")

    @property
    def reply(self) -> Locator:
        """The newest answer."""
        return self.page.locator(".reply").last

    @property
    def text(self) -> Locator:
        return self.reply.locator(".text")

    @property
    def sessions(self) -> Locator:
        return self.page.locator("#sessions li")

    def button(self, name: str, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    async def type(self, message: str) -> None:
        await self.field.fill(message)
        await self.page.keyboard.press("Enter")

    async def say(self, message: str) -> None:
        """Until the answer is complete and its conversation is in the list."""
        async with self.page.expect_response(lambda response: "/sessions?" in response.url):
            await self.type(message)
        await expect(self.reply).not_to_have_attribute("aria-busy", "true")

    async def start_new(self) -> None:
        await self.button("New conversation").click()
        await expect(self.page.locator(".welcome")).to_be_visible()

    async def explain(self) -> Locator:
        """Unfolds why the newest answer came as it did."""
        await self.reply.locator(".why-button").click()
        panel = self.reply.locator(".why")
        await expect(panel).to_be_visible()
        return panel


# Once a tab, before the page's own scripts: whoever opens the next tab is a new user.
FORGET = "if (!sessionStorage.getItem('begun')) { localStorage.clear(); sessionStorage.setItem('begun', 1) }"


@asynccontextmanager
async def window(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """Tabs with one cache for what never changes."""
    context = await browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce"} | options)
    context.set_default_timeout(8000)
    await context.add_init_script(FORGET)
    yield context
    await context.close()


@asynccontextmanager
async def tab(context: BrowserContext, url: str) -> AsyncIterator[ChatPage]:
    """The page as a new user sees it."""
    chat = ChatPage(await context.new_page(), url)
    await chat.page.goto(url)
    yield chat
    await chat.page.close()
    assert chat.problems == []


@asynccontextmanager
async def visit(browser: Browser, url: str, **options: Any) -> AsyncIterator[ChatPage]:
    """In a window of its own."""
    async with window(browser, **options) as context, tab(context, url) as chat:
        yield chat
