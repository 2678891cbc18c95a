package io.lora4j.train;

import io.lora4j.formats.Tokenizer;
import io.lora4j.train.data.ChatFormat;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeParseException;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The options of every command that renders conversations. */
public final class ChatOptions {
    /** The name of the file that holds a chat template, beside a model or an adapter. */
    public static final String TEMPLATE_FILE = "chat_template.jinja";

    /** Another path is no other run; another template is. */
    public static final Option<Path> CHAT_TEMPLATE_PATH = Option.ofPath(
                    "chat_template_path",
                    "Jinja file that replaces the chat template of the model. train writes it beside the adapter; the other"
                            + " commands take the adapter's where it has one.")
            .otherwise("the model's")
            .changeable();

    public static final Option<Map<String, Object>> CHAT_TEMPLATE_KWARGS = Option.ofJson(
            "chat_template_kwargs",
            List.of("messages", "add_generation_prompt"),
            "Variables for the chat template, such as {\"enable_thinking\": false}.");
    public static final Option<LocalDateTime> TEMPLATE_DATE = Option.<LocalDateTime>of(
                    "template_date",
                    "DATE",
                    null,
                    "The date, or date and time (2026-03-07T14:05), that chat templates show.",
                    ChatOptions::date)
            .otherwise("the time at which the run was first started");

    private ChatOptions() {}

    private static LocalDateTime date(Object given) {
        String text = given.toString();
        try {
            return text.contains("T")
                    ? LocalDateTime.parse(text)
                    : LocalDate.parse(text).atStartOfDay();
        } catch (DateTimeParseException e) {
            throw new IllegalArgumentException("a date as YYYY-MM-DD or YYYY-MM-DDTHH:MM", e);
        }
    }

    /**
     * Returns the time that chat templates show.
     *
     * @param now what counts where template_date is not given
     */
    public static ZonedDateTime clock(Settings settings, Clock now) {
        return settings.find(TEMPLATE_DATE)
                .map(date -> date.atZone(ZoneOffset.UTC))
                .orElseGet(() -> ZonedDateTime.now(now).truncatedTo(ChronoUnit.SECONDS));
    }

    /**
     * Returns how conversations are rendered: with the template that the options name, or the adapter's, or the model's.
     *
     * @param adapter the folder of the adapter that is used, if one is
     * @param clock the time that templates show
     */
    public static ChatFormat format(Settings settings, Tokenizer tokenizer, Optional<Path> adapter, ZonedDateTime clock)
            throws IOException {
        Optional<Path> file = settings.find(CHAT_TEMPLATE_PATH)
                .or(() -> adapter.map(dir -> dir.resolve(TEMPLATE_FILE)).filter(Files::exists));
        ChatFormat format = ChatFormat.of(tokenizer, clock);
        format = file.isPresent() ? format.withTemplate(file.get()) : format;
        return format.withVariables(settings.get(CHAT_TEMPLATE_KWARGS));
    }
}
