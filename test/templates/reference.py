"""What transformers writes: JSON of {templates, chats, ends} on stdin to a list of results per template on stdout, each {"text"} or {"error"}."""
import json
import sys
from datetime import datetime

from transformers.utils import chat_template_utils


class Day(datetime):
    """The day that our templates have for ever."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = Day


def render(template, chat, ends):
    try:
        # as `apply_chat_template` gives them: nothing that is null
        messages = chat_template_utils._normalize_chat_messages(chat["messages"])
        is_continued = messages[-1]["role"] == "assistant"
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages],
            tools=chat.get("tools"),
            chat_template=template,
            add_generation_prompt=not is_continued,
            continue_final_message=is_continued,
            **ends,
        )
        return {"text": rendered[0]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


asked = json.load(sys.stdin)
results = [[render(template, chat, asked["ends"]) for chat in asked["chats"]] for template in asked["templates"]]
json.dump(results, sys.stdout)
