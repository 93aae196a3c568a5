/** The list of conversations: search, choose, delete. */
import { useState } from "preact/hooks";
import { type Conversation, deleteConversation, titleOf } from "../conversations.ts";
import { Icon } from "../icons.tsx";
import { DeleteButton } from "../parts.tsx";

interface ConversationsProps {
  /** Of the model. */
  all: Conversation[];
  /** Of the one that is shown. */
  id: string;
  /** Shows one; empty: a new one. */
  show: (id: string) => void;
}

export function Conversations({ all, id, show }: ConversationsProps) {
  const [isOpen, setIsOpen] = useState(false);
  const [words, setWords] = useState("");
  const found = all.filter((conversation) => isFound(conversation, words.trim().toLowerCase()));
  const choose = (next: string) => {
    setIsOpen(false);
    show(next);
  };
  return (
    <aside class={`conversations ${isOpen ? "open" : ""}`} aria-label="Conversations">
      <div class="conversations-head">
        <button type="button" class="button list-toggle" aria-expanded={isOpen} onClick={() => setIsOpen(!isOpen)}>
          <Icon name="list" /> Conversations
        </button>
        <button type="button" class="button" onClick={() => choose("")}>
          <Icon name="plus" /> New chat
        </button>
      </div>
      <div class="conversations-body">
        {all.length > 0 && (
          <input
            type="search"
            aria-label="Search conversations"
            placeholder="Search"
            value={words}
            onInput={(event) => setWords(event.currentTarget.value)}
          />
        )}
        <ul>
          {found.map((other) => (
            <li key={other.id} class={other.id === id ? "current" : ""}>
              <button
                type="button"
                class="conversation"
                aria-current={other.id === id ? "true" : undefined}
                onClick={() => choose(other.id)}
              >
                {titleOf(other)}
              </button>
              <DeleteButton what={`conversation ${titleOf(other)}`} onDelete={() => deleteConversation(other.id)} />
            </li>
          ))}
        </ul>
        <p class="note" role="status">
          {all.length === 0
            ? "Conversations are kept in this browser only."
            : found.length === 0 && "None has these words."}
        </p>
      </div>
    </aside>
  );
}

const isFound = (conversation: Conversation, words: string): boolean =>
  [titleOf(conversation), ...conversation.messages.map(({ content }) => content)].some((text) =>
    text.toLowerCase().includes(words),
  );
