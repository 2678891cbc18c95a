package io.lora4j.formats.template;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.Span;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ChatTemplateTest {
    private static final ZonedDateTime NOW = ZonedDateTime.of(2026, 3, 7, 14, 5, 9, 0, ZoneOffset.UTC);
    private static final List<Message> CHAT = List.of(new Message("user", "Hi"), new Message("assistant", "Yes"));

    private static Rendering render(String template, List<Message> messages) throws FormatException {
        return ChatTemplate.parse(template, "t.jinja").render(messages, Map.of("eos_token", "</s>"), NOW);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{% include 'x' %}|line 1: tag {% include %} is not supported",
                "{% call f %}{% endcall %}|found 'f' where the call of a macro was expected",
                "{% filter upper %}a{% endif %}|unexpected tag {% endif %}",
                "{% with a = 1 %}{% endwith %}|tag {% with %} is not supported",
                "{% do x %}|tag {% do %} is not supported",
                "{% endif %}|unexpected tag {% endif %}",
                "{% if a %}x|the template ends where",
                "{% for a in b recursive %}{% endfor %}|recursive loops are not supported",
                "{% break %}|'break' outside a loop",
                "{{ a ¦ wordwrap }}|filter 'wordwrap' is not supported",
                "{{ 'a' ¦ }}|found '}}' where a name was expected",
                "{{ a is escaped }}|test 'escaped' is not supported",
                "{{ f(**a, *b) }}|where ')' was expected",
                "{{ a[1, 2] }}|subscripts with several indices are not supported",
                "{{ 'open }}|string is not closed",
                "{{ a|tag is not closed; expected '}}'",
                "{# a|comment is not closed",
                "{% raw %}a|raw block is not closed",
                "{{ 0x1f }}|number '0x…' is not supported",
                "{{ a ? b }}|unexpected character '?'",
                "{{ (a] }}|unexpected ']'",
                "{{ if }}|found 'if' where an expression was expected",
                "{{ '\\101' }}|escape '\\1' in a string is not supported",
                "{{ 99999999999999999999 }}|integer 99999999999999999999 is too large",
                "{% set a.b.c = 1 %}|where '=' was expected",
                "{% macro f(a=1, b) %}{% endmacro %}|where a default value was expected",
            })
    void refusesByNameAtParsing(String template, String message) {
        // The table cannot hold a pipe; filters are written with ¦.
        assertThatThrownBy(() -> ChatTemplate.parse(template.replace('¦', '|'), "t.jinja"))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith("t.jinja: line ")
                .hasMessageContaining(message);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '~',
            value = {
                "{{ nope.x }}|line 1: 'nope' is undefined",
                "{{ nope() }}|'nope' is undefined",
                "{{ nope + 1 }}|'nope' is undefined",
                "{{ messages.append(1) }}|method 'append' of a list changes it, which the sandbox of chat templates forbids",
                "{{ messages[0].update({}) }}|method 'update' of a mapping changes it",
                "{{ '{:>9}'.format(1) }}|'format' with the field {:>9} is not supported",
                "{{ '{'.format(1) }}|'format' found a single '{'",
                "{{ '{} {}'.format(1) }}|'format' needs an argument",
                "{% if true %}{{ 1 ¦ wordwrap }}{% endif %}|line 1: filter 'wordwrap' is not supported",
                "{% if true %}{{ 1 is escaped }}{% endif %}|line 1: test 'escaped' is not supported",
                "{% call raise_exception('x') %}{% endcall %}|{% call %} needs a macro, not a function",
                "{{ raise_exception(**[1]) }}|'**' needs a mapping, not a list",
                "{{ messages ¦ map('upper') ¦ tojson }}|'tojson' does not take a generator",
                "{{ 'a%s' % 1 }}|formatting strings with '%' is not supported",
                "{{ 'a' + 1 }}|operator '+' does not take a string and an integer",
                "{{ 1 / 0 }}|division by zero",
                "{{ 1 < 'a' }}|cannot order an integer and a string",
                "{{ 9223372036854775807 + 1 }}|integer overflow",
                "{{ range(1000000) }}|range is longer than 100000",
                "{{ strftime_now('%Q') }}|time format '%Q' is not supported",
                "{{ loop.nope }}|'loop' is undefined",
                "{% for m in messages %}{{ loop.changed(1) }}{% endfor %}|attribute 'loop.changed' is not supported",
                "{% set messages.x = 1 %}|cannot assign attribute 'x' of a list; only namespaces take it",
                "{% set a, b = [1] %}|cannot unpack 1 values into 2 names",
                "{{ raise_exception('no ' ~ 'way') }}|the template refuses the messages: no way",
                "{{ 5 ¦ length }}|an integer has no length",
                "{% for x in 5 %}{% endfor %}|an integer cannot be looped over",
                "{{ {} ¦ tojson(foo=1) }}|'tojson' has no argument 'foo' that is supported",
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}|calls deeper than 60 levels",
                "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}|runs for more than 20000000 steps",
            })
    void failsByNameAtRendering(String template, String message) {
        assertThatThrownBy(() -> render(template.replace('¦', '|'), CHAT))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith("t.jinja: line 1: ")
                .hasMessageContaining(message);
    }

    @Test
    void namesTheLineOfTheMistake() {
        assertThatThrownBy(() -> render("a\n\n{% if true %}\n  {{ nope.x }}\n{% endif %}", CHAT))
                .hasMessageStartingWith("t.jinja: line 4: ");
        assertThatThrownBy(() -> ChatTemplate.parse("a\nb {{ c }}\n{{ d | nope }}", "t.jinja"))
                .hasMessageStartingWith("t.jinja: line 3: filter 'nope'");
    }

    @Test
    void endlessNestingIsRefusedNotACrash() {
        assertThatThrownBy(() -> ChatTemplate.parse("{{ " + "(".repeat(5000) + ")".repeat(5000) + " }}", "t.jinja"))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("nested deeper than");
        assertThatThrownBy(() -> ChatTemplate.parse("{% if a %}".repeat(5000), "t.jinja"))
                .isInstanceOf(FormatException.class);
        assertThatThrownBy(() -> render("{{ 1" + " + 1".repeat(200_000) + " }}", CHAT))
                .isInstanceOf(FormatException.class);
        assertThatThrownBy(() -> render("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", CHAT))
                .isInstanceOf(FormatException.class)
                .hasMessageContaining("prints more than");
    }

    @Test
    void aRangeEndsWhereTheMessagesTurnEnds() throws FormatException {
        String template = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}!";
        List<Message> messages =
                List.of(new Message("assistant", " a "), new Message("user", "b"), new Message("assistant", "c"));
        Rendering rendering = render(template, messages);
        assertThat(rendering.text()).isEqualTo("<assistant>a</><user>b</><assistant>c</>!");
        assertThat(rendering.assistantSpans().stream().map(s -> s.of(rendering.text())))
                .containsExactly("a</>", "c</>");
    }

    @Test
    void contentThatWasRewrittenIsStillFound() throws FormatException {
        String template = "{% for m in messages %}{% set c = m.content | replace('e', 'EE') | upper %}"
                + "{% set p = c.split('S') %}{{ m.role ~ ': ' ~ p | join('$') ~ ';' }}{% endfor %}";
        Rendering rendering = render(template, CHAT);
        assertThat(rendering.text()).isEqualTo("user: HI;assistant: YEE$;");
        assertThat(rendering.assistantSpans()).containsExactly(new Span(20, 25));
    }

    @Test
    void contentThroughAMacroAndABlockIsFound() throws FormatException {
        String template = "{% macro show(m) %}{% for c in [m.content] %}({{ c }}){% endfor %}{% endmacro %}"
                + "{% for m in messages %}{% set s %}{{ m.role }}{{ show(m) }}{% endset %}{{ s }}.{% endfor %}";
        Rendering rendering = render(template, CHAT);
        assertThat(rendering.text()).isEqualTo("user(Hi).assistant(Yes).");
        assertThat(rendering.assistantSpans()).containsExactly(new Span(19, 24));
    }

    @Test
    void refusesWhereAnAnswerCannotBeTold() {
        assertThatThrownBy(() -> render("{{ messages[0].content }} {{ messages[1].content }}", CHAT))
                .hasMessageContaining("message 2 (assistant) in several places, outside a loop");
        assertThatThrownBy(() -> render(
                        "{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
                        CHAT))
                .hasMessageContaining("message 2 (assistant) in several places");
        assertThatThrownBy(() -> render("{% for m in messages %}{{ m.role }}{% endfor %}", CHAT))
                .hasMessageContaining("nothing of message 2 (assistant) can be found");
        assertThatThrownBy(() -> render(
                        "{% for m in messages %}{{ m.content }}{% endfor %}",
                        List.of(new Message("user", "a"), new Message("assistant", ""))))
                .hasMessageContaining("it is empty");
        assertThatThrownBy(() -> render("{% for m in messages %};{{ m.content }}{% endfor %}", CHAT))
                .hasMessageContaining("prints nothing behind message 2 (assistant) in its turn");
        // A header is found, and behind it the end of the turn, but not the answer.
        assertThatThrownBy(() -> render(
                        "{% for m in messages %}<{{ m.role }}>;{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
                        CHAT))
                .hasMessageContaining("nothing of message 2 (assistant) can be found");
    }

    @Test
    void generationBlocksHaveTheSay() throws FormatException {
        String template = "{% for m in messages %}{{ m.role }}{% if m.role == 'assistant' %}"
                + "{% generation %}: {{ m.content }}{% endgeneration %}.{% endif %}{% endfor %}";
        ChatTemplate parsed = ChatTemplate.parse(template, "t");
        assertThat(parsed.marksGeneration()).isTrue();
        Rendering rendering = parsed.render(CHAT, Map.of(), NOW);
        assertThat(rendering.text()).isEqualTo("userassistant: Yes.");
        assertThat(rendering.assistantSpans()).containsExactly(new Span(13, 18));
    }

    @Test
    void anAnswerBeginsWhereTheModelWillBegin() throws FormatException {
        // The mark of a thought is printed by the template and written by the model.
        String template = "{% for m in messages %}<{{ m.role }}>"
                + "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }};{% endfor %}"
                + "{% if add_generation_prompt %}<assistant>{{ prompted }}{% endif %}";
        assertThat(said(template, Map.of())).containsExactly("<think></think>Yes;");
        assertThat(said(template, Map.of("prompted", "<think></think>"))).containsExactly("Yes;");
        // A prompt that the turns do not begin with tells nothing; the content does.
        assertThat(said(template, Map.of("prompted", "<think>now</think>"))).containsExactly("Yes;");
    }

    @Test
    void anEmptyAnswerIsFoundByItsHeader() throws FormatException {
        String template = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
                + "{% if add_generation_prompt %}<assistant>{% endif %}";
        Rendering rendering = render(template, List.of(new Message("user", "a"), new Message("assistant", "")));
        assertThat(rendering.answers()).containsExactly(new Rendering.Answer(new Span(19, 20), 1));
    }

    @Test
    void theEosBehindTheLastTurnIsPartOfIt() throws FormatException {
        String template = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
                + "{% if add_generation_prompt %}<assistant>{% else %}{{ eos_token }}{% endif %}";
        Map<String, Object> eos = Map.of("eos_token", "</s>");
        assertThat(said(template, eos)).containsExactly("Yes;</s>");
        // Whatever else stands there is not known to be the assistant's.
        assertThat(said(template + "<user>", eos)).containsExactly("Yes;");
    }

    private static List<String> said(String template, Map<String, Object> variables) throws FormatException {
        Rendering rendering = ChatTemplate.parse(template, "t").render(CHAT, variables, NOW);
        return rendering.assistantSpans().stream()
                .map(s -> s.of(rendering.text()))
                .toList();
    }

    @Test
    void aToolInsideTheTurnOfTheAssistantIsRefused() {
        String template = "{% for m in messages if m.role != 'tool' %}<{{ m.role }}>{{ m.content }}"
                + "{% if loop.last %}{% for i in [2] %}[{{ messages[i].content }}]{% endfor %}{% endif %};{% endfor %}";
        List<Message> messages =
                List.of(new Message("user", "a"), new Message("assistant", "b"), new Message("tool", "c"));
        assertThatThrownBy(() -> render(template, messages))
                .hasMessageContaining(
                        "message 2 (assistant) in several places, outside a loop over the messages or with other");
        assertThatThrownBy(() -> render(
                        template.replace("{% for i in [2] %}", "")
                                .replace("[i]", "[2]")
                                .replaceFirst("\\{% endfor %}", ""),
                        messages))
                .hasMessageContaining("prints message 3 inside the turn of message 2 (assistant)");
    }

    @Test
    void variablesOfTheCallerAreSeen() throws FormatException {
        String template = "{{ n }} {{ f }} {{ l[1] }} {{ m.k }} {{ none_value }} {{ b }}";
        Map<String, Object> variables = new java.util.HashMap<>(
                Map.of("n", 3, "f", 0.5, "l", List.of(1, "two"), "m", Map.of("k", "v"), "b", true));
        variables.put("none_value", null);
        assertThat(ChatTemplate.parse(template, "t")
                        .render(List.of(), variables, NOW)
                        .text())
                .isEqualTo("3 0.5 two v None True");
    }
}
