"""The seed-era module name of chat parsing. New code imports from where it lives."""

from __future__ import annotations

from mmcore.entrypoints.chat import ChatPrompts, Message, ParsedMessages, parse_messages
from mmcore.entrypoints.chat_template import ChatTemplate

ChatCompletionMessageParam = Message

__all__ = [
    "ChatCompletionMessageParam",
    "ChatPrompts",
    "ChatTemplate",
    "Message",
    "ParsedMessages",
    "parse_messages",
]
