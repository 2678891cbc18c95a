// Quantized weights that other software made: test-data/quant, and a larger set that is not part of the project.
#pragma once

#include "quant_case.h"

namespace l4j {

using Cases = std::map<std::string, std::map<std::string, Stored>>;

// <scheme>.<case>.<part>
inline Cases read_cases(const std::string &path) {
    Cases cases;
    for (auto &named : read_safetensors(path)) {
        size_t dot = named.first.rfind('.');
        cases[named.first.substr(0, dot)][named.first.substr(dot + 1)] = named.second;
    }
    return cases;
}

inline Parts parts_of(const std::string &name, const std::map<std::string, Stored> &stored) {
    Parts p;
    p.scheme = scheme_named(name.substr(0, name.find('.')));
    p.rows = stored.at("dequantized").shape[0];
    p.cols = stored.at("dequantized").shape[1];
    for (int32_t role = L4J_ROLE_VALUES; role <= L4J_ROLE_NESTED_BLOCK_SIZE; role++) {
        auto part = stored.find(role_names()[role]);
        if (part == stored.end()) continue;
        p.add(role, part->second.dtype, part->second.shape, part->second.bytes);
    }
    return p;
}

struct OwnersCase {
    std::string name;
    Parts parts;
    Stored dequantized, w;
};

// ggml_blocks.safetensors: q4_K.3x512.{blocks, dequantized, w}
inline void read_ggml_blocks(const std::string &path, std::vector<OwnersCase> *all) {
    for (auto &c : read_cases(path)) {
        std::string type = c.first.substr(0, c.first.find('.'));
        for (char &letter : type) letter = static_cast<char>(toupper(letter));
        OwnersCase owned;
        owned.name = c.first;
        owned.dequantized = c.second.at("dequantized");
        owned.w = c.second.at("w");
        Parts &p = owned.parts;
        p.scheme = scheme_named("GGUF_" + type);
        p.rows = owned.w.shape[0];
        p.cols = owned.w.shape[1];
        const Stored &blocks = c.second.at("blocks");
        p.add(L4J_ROLE_VALUES, L4J_U8, {p.rows, blocks.size() / p.rows}, blocks.bytes);
        all->push_back(owned);
    }
}

// bitsandbytes_4bit*.safetensors: 001.nf4.64x64.b64.float32.dq.<part>
inline void read_bitsandbytes(const std::string &path, std::vector<OwnersCase> *all) {
    Cases cases;
    for (auto &named : read_safetensors(path)) {
        size_t at = 0;
        for (int i = 0; i < 6; i++) at = named.first.find('.', at) + 1;
        cases[named.first.substr(0, at - 1)][named.first.substr(at)] = named.second;
    }
    for (auto &c : cases) {
        bool nf4 = c.first.find(".nf4.") != std::string::npos;
        OwnersCase owned;
        owned.name = c.first;
        owned.dequantized = c.second.at("dequantized");
        owned.w = c.second.at("w");
        Parts &p = owned.parts;
        p.scheme = nf4 ? L4J_SCHEME_NF4 : L4J_SCHEME_FP4;
        p.rows = owned.w.shape[0];
        p.cols = owned.w.shape[1];
        const Stored &state = c.second.at(nf4 ? "quant_state.bitsandbytes__nf4" : "quant_state.bitsandbytes__fp4");
        std::string json(state.bytes.begin(), state.bytes.end());
        auto number = [&](const char *key) { return std::stod(json.substr(json.find(key) + strlen(key) + 3)); };
        auto size = [&](const char *key) { return std::vector<int64_t>{static_cast<int64_t>(number(key))}; };
        auto add = [&](int32_t role, const char *name) {
            const Stored &s = c.second.at(name);
            p.add(role, s.dtype, s.shape, s.bytes);
        };
        add(L4J_ROLE_VALUES, "packed");
        add(L4J_ROLE_SCALES, "absmax");
        add(L4J_ROLE_QUANT_MAP, "quant_map");
        p.add(L4J_ROLE_BLOCK_SIZE, L4J_I64, {1}, size("\"blocksize"));
        if (c.second.count("nested_absmax")) {
            add(L4J_ROLE_NESTED_SCALES, "nested_absmax");
            add(L4J_ROLE_NESTED_QUANT_MAP, "nested_quant_map");
            p.add(L4J_ROLE_NESTED_OFFSET, L4J_F32, {1},
                  std::vector<float>{static_cast<float>(number("nested_offset"))});
            p.add(L4J_ROLE_NESTED_BLOCK_SIZE, L4J_I64, {1}, size("nested_blocksize"));
        }
        all->push_back(owned);
    }
}

inline std::vector<OwnersCase> owners_cases(const std::string &folder) {
    std::vector<OwnersCase> all;
    read_ggml_blocks(folder + "/ggml_blocks.safetensors", &all);
    read_bitsandbytes(folder + "/bitsandbytes_4bit.safetensors", &all);
    read_bitsandbytes(folder + "/bitsandbytes_4bit_more.safetensors", &all);
    return all;
}

} // namespace l4j
