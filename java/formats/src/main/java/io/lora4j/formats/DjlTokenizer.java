package io.lora4j.formats;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import ai.djl.huggingface.tokenizers.jni.CharSpan;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import org.jspecify.annotations.Nullable;

/** Hugging Face's tokenizers library through DJL's binding. */
final class DjlTokenizer implements Tokenizer {
    static {
        // The binding would otherwise look for a GPU build to download, and report its use; both are off unless the
        // user
        // has set them.
        setDefault("RUST_FLAVOR", "cpu");
        setDefault("OPT_OUT_TRACKING", "true");
    }

    private final HuggingFaceTokenizer tokenizer;
    private final TokenizerFiles files;
    private final int vocabSize;

    private DjlTokenizer(HuggingFaceTokenizer tokenizer, TokenizerFiles files) {
        this.tokenizer = tokenizer;
        this.files = files;
        this.vocabSize = 1
                + files.vocabulary().values().stream()
                        .mapToInt(Integer::intValue)
                        .max()
                        .orElse(-1);
    }

    private static void setDefault(String key, String value) {
        if (System.getenv(key) == null && System.getProperty(key) == null) {
            System.setProperty(key, value);
        }
    }

    static DjlTokenizer open(Path dir) throws IOException {
        TokenizerFiles files = TokenizerFiles.read(dir);
        Map<String, String> options =
                Map.of("truncation", "do_not_truncate", "padding", "do_not_pad", "addSpecialTokens", "false");
        try {
            ByteArrayInputStream json = new ByteArrayInputStream(files.effectiveJson());
            return new DjlTokenizer(HuggingFaceTokenizer.newInstance(json, options), files);
        } catch (RuntimeException e) {
            throw new FormatException(
                    files.file() + ": the tokenizers library cannot load it: " + e.getMessage()
                            + "; save the tokenizer again with a current transformers",
                    e);
        } catch (LinkageError e) {
            throw new FormatException(
                    files.file() + ": the tokenizers library cannot be loaded: " + reason(e) + "; " + advice(e), e);
        }
    }

    /** Returns what was said first: about a class whose initialisation has failed, the JVM itself says less. */
    private static String reason(Throwable e) {
        Throwable first = e;
        while (first.getCause() != null) {
            first = first.getCause();
        }
        return String.valueOf(first.getMessage());
    }

    private static String advice(LinkageError e) {
        if (reason(e).contains("already loaded in another classloader")) {
            return "JNI binds it to one class loader of a process: give the loaders that use it a common parent with"
                    + " ai.djl.huggingface:tokenizers and ai.djl:api; lora4j's own library has no such limit";
        }
        return "it needs Linux or macOS with glibc on x86-64 or arm64, and a folder that can be written and is not mounted"
                + " noexec: ~/.djl.ai, or the one that DJL_CACHE_DIR names (a variable of the environment, or -DDJL_CACHE_DIR=)";
    }

    @Override
    public int[] encode(String text, boolean addSpecialTokens) {
        requireWellFormed(text);
        return narrow(tokenizer.encode(text, addSpecialTokens, false).getIds());
    }

    @Override
    public Encoding encodeWithOffsets(String text, boolean addSpecialTokens) {
        requireWellFormed(text);
        ai.djl.huggingface.tokenizers.Encoding encoding = tokenizer.encode(text, addSpecialTokens, false);
        int[] ids = narrow(encoding.getIds());
        int[] starts = new int[ids.length];
        int[] ends = new int[ids.length];
        @Nullable CharSpan[] spans = encoding.getCharTokenSpans();
        int[] units = unitOfCodePoint(text);
        int before = 0;
        for (int i = 0; i < ids.length; i++) {
            CharSpan span = spans[i];
            starts[i] = before;
            ends[i] = before;
            if (span == null) {
                continue; // Added by the post-processor: stands for nothing in the text.
            }
            // The binding counts code points. Where the tokenizer trims spaces off its offsets (trim_offsets), the
            // tokens
            // still stand for them: one that was trimmed to nothing gets a space, the next one begins where it ends.
            int start = units[span.getStart()];
            if (start > before && i > 0 && spans[i - 1] != null && starts[i - 1] == ends[i - 1]) {
                ends[i - 1] = ++before;
            }
            starts[i] = Math.min(start, before);
            ends[i] = Math.max(units[span.getEnd()], starts[i]);
            before = Math.max(before, ends[i]);
        }
        return new Encoding(ids, starts, ends);
    }

    /** Returns the UTF-16 index of every code point, and of the end. */
    private static int[] unitOfCodePoint(String text) {
        int[] units = new int[text.codePointCount(0, text.length()) + 1];
        int unit = 0;
        for (int i = 0; i < units.length; i++) {
            units[i] = unit;
            unit = i + 1 < units.length ? text.offsetByCodePoints(unit, 1) : unit;
        }
        return units;
    }

    private static void requireWellFormed(String text) {
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean pair = Character.isHighSurrogate(c)
                    && i + 1 < text.length()
                    && Character.isLowSurrogate(text.charAt(i + 1));
            if (pair) {
                i++;
            } else if (Character.isSurrogate(c)) {
                throw new IllegalArgumentException(
                        "text is not Unicode: half a surrogate pair (U+" + Integer.toHexString(c) + ") at index " + i);
            }
        }
    }

    private static int[] narrow(long[] ids) {
        int[] narrow = new int[ids.length];
        for (int i = 0; i < ids.length; i++) {
            narrow[i] = Math.toIntExact(ids[i]);
        }
        return narrow;
    }

    @Override
    public String decode(int[] ids, boolean skipSpecial) {
        long[] wide = new long[ids.length];
        for (int i = 0; i < ids.length; i++) {
            if (ids[i] < 0) {
                throw new IllegalArgumentException("token id " + ids[i] + " is negative");
            }
            wide[i] = ids[i];
        }
        return tokenizer.decode(wide, skipSpecial);
    }

    @Override
    public int vocabSize() {
        return vocabSize;
    }

    @Override
    public OptionalInt tokenToId(String token) {
        Integer id = files.vocabulary().get(token);
        return id == null ? OptionalInt.empty() : OptionalInt.of(id);
    }

    @Override
    public Optional<SpecialToken> bos() {
        return Optional.ofNullable(files.special("bos_token"));
    }

    @Override
    public Optional<SpecialToken> eos() {
        return Optional.ofNullable(files.special("eos_token"));
    }

    @Override
    public Optional<SpecialToken> pad() {
        return Optional.ofNullable(files.special("pad_token"));
    }

    @Override
    public Optional<SpecialToken> unk() {
        return Optional.ofNullable(files.special("unk_token"));
    }

    @Override
    public Optional<String> chatTemplate() {
        return Optional.ofNullable(files.template());
    }

    @Override
    public String chatTemplateSource() {
        return files.templateSource();
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
