package io.lora4j.kernels;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What {@code lora4j.h} declares, read from its text: just enough of a C parser for a header without function pointers,
 * by-value structs and conditional declarations. Types are reduced to what crosses the boundary: {@code void, i8, i16, i32,
 * i64, f32, f64, pointer}, and {@code i8[n]} or {@code i64[n]} for arrays in structs.
 *
 * @param functions each function's signature, such as {@code (pointer, i32) i32}
 * @param structs each struct's fields in order, such as {@code data: pointer}
 * @param constants enum constants and numeric macros; null where the value is an expression
 */
record CHeader(Map<String, String> functions, Map<String, List<String>> structs, Map<String, Long> constants) {
    private static final Pattern FUNCTION =
            Pattern.compile("\\bL4J_API\\s+([^;(]*?)\\b(l4j_\\w+)\\s*\\(([^)]*)\\)\\s*;");
    private static final Pattern STRUCT =
            Pattern.compile("\\btypedef\\s+struct\\s+(l4j_\\w+)\\s*\\{([^}]*)\\}\\s*\\1\\s*;");
    private static final Pattern ENUM = Pattern.compile("\\benum\\s*\\{([^}]*)\\}");
    private static final Pattern ENUMERATOR = Pattern.compile("\\b(L4J_\\w+)\\s*=\\s*(-?\\w+)");
    private static final Pattern MACRO = Pattern.compile("(?m)^#define\\s+(L4J_\\w+)\\s+(\\d+|\\(.*\\))\\s*$");
    private static final Pattern FIELD = Pattern.compile("^(.*?)(\\w+)\\s*(\\[\\d+\\])?$", Pattern.DOTALL);

    static CHeader read(Path file) throws IOException {
        String text = Files.readString(file).replaceAll("(?s)/\\*.*?\\*/", " ");
        Map<String, String> functions = new LinkedHashMap<>();
        for (MatchResult m : all(FUNCTION, text)) {
            functions.put(m.group(2), "(" + String.join(", ", parameters(m.group(3))) + ") " + type(m.group(1)));
        }
        Map<String, List<String>> structs = new LinkedHashMap<>();
        for (MatchResult m : all(STRUCT, text)) {
            structs.put(m.group(1), fields(m.group(2)));
        }
        Map<String, Long> constants = new LinkedHashMap<>();
        for (MatchResult body : all(ENUM, text)) {
            for (MatchResult m : all(ENUMERATOR, body.group(1))) {
                constants.put(m.group(1), Long.decode(m.group(2)));
            }
        }
        for (MatchResult m : all(MACRO, text)) {
            constants.put(m.group(1), m.group(2).startsWith("(") ? null : Long.decode(m.group(2)));
        }
        return new CHeader(functions, structs, constants);
    }

    private static List<MatchResult> all(Pattern pattern, String text) {
        return pattern.matcher(text).results().toList();
    }

    private static List<String> parameters(String list) {
        List<String> types = new ArrayList<>();
        if (!list.strip().equals("void")) {
            for (String parameter : list.split(",")) {
                types.add(type(parameter.strip().replaceFirst("\\w+$", "")));
            }
        }
        return types;
    }

    private static List<String> fields(String body) {
        List<String> fields = new ArrayList<>();
        for (String declaration : body.split(";")) {
            if (declaration.isBlank()) {
                continue;
            }
            Matcher m = FIELD.matcher(declaration.strip());
            if (!m.matches()) {
                throw new IllegalStateException("not a field: " + declaration);
            }
            fields.add(m.group(2) + ": " + type(m.group(1)) + (m.group(3) == null ? "" : m.group(3)));
        }
        return fields;
    }

    private static String type(String declared) {
        String type = declared.replace("const", "").strip();
        if (type.endsWith("*")) {
            return "pointer";
        }
        return switch (type) {
            case "void" -> "void";
            case "char" -> "i8";
            case "uint16_t" -> "i16";
            case "int32_t", "uint32_t", "l4j_status" -> "i32";
            case "int64_t", "uint64_t", "size_t" -> "i64";
            case "float" -> "f32";
            case "double" -> "f64";
            default -> throw new IllegalStateException("a type that the bindings should not meet: " + type);
        };
    }
}
