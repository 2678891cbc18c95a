package io.lora4j.train.data;

import io.lora4j.formats.template.Message;
import java.util.List;

/** A line of a data file as it was written. Immutable. */
public sealed interface Example {

    /** Returns the line of the file, 1 for the first. */
    int line();

    /** Returns the name of this kind of row. */
    String kind();

    /**
     * A text, learned as a whole: {@code {"text": …}}.
     *
     * @param line the line of the file
     * @param text the text
     */
    record Text(int line, String text) implements Example {
        @Override
        public String kind() {
            return "text";
        }
    }

    /**
     * A text and how it goes on: {@code {"prompt": …, "completion": …}}.
     *
     * @param line the line of the file
     * @param prompt what is given
     * @param completion what is to be learned
     */
    record Completion(int line, String prompt, String completion) implements Example {
        @Override
        public String kind() {
            return "prompt and completion";
        }
    }

    /**
     * A conversation: {@code {"messages": […]}}, or lists of messages as prompt and completion.
     *
     * @param line the line of the file
     * @param messages the messages
     * @param promptMessages how many of them are given and never learned; −1 if the row was {@code messages}
     */
    record Chat(int line, List<Message> messages, int promptMessages) implements Example {
        /** Copies the list. */
        public Chat {
            messages = List.copyOf(messages);
        }

        @Override
        public String kind() {
            return promptMessages < 0 ? "messages" : "prompt and completion with messages";
        }
    }
}
