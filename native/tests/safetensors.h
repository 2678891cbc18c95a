// Reads safetensors files whose header is as the format's own writer makes it: test data, not untrusted input.
#pragma once

#include "support.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

namespace l4j {

// A file below test-data: of the sources, or of the folder LORA4J_TEST_DATA on a machine that has the programs only.
inline std::string test_data(const char *file) {
    const char *folder = getenv("LORA4J_TEST_DATA");
    return std::string(folder ? folder : L4J_TEST_DATA) + "/" + file;
}

struct Stored {
    int32_t dtype = 0;
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;

    template <typename T> const T *as() const { return reinterpret_cast<const T *>(bytes.data()); }
    int64_t size() const {
        int64_t n = 1;
        for (int64_t s : shape) n *= s;
        return n;
    }
    // Fp32 values of stored floats.
    std::vector<float> floats() const {
        std::vector<float> out(static_cast<size_t>(size()));
        for (size_t i = 0; i < out.size(); i++) {
            if (dtype == L4J_F32) {
                out[i] = as<float>()[i];
            } else if (dtype == L4J_BF16) {
                uint32_t u = static_cast<uint32_t>(as<uint16_t>()[i]) << 16;
                memcpy(&out[i], &u, 4);
            } else {
                Half h;
                memcpy(&h, as<uint16_t>() + i, 2);
                out[i] = static_cast<float>(h);
            }
        }
        return out;
    }
};

inline std::map<std::string, Stored> read_safetensors(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    std::string file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::map<std::string, Stored> all;
    if (file.size() < 8) {
        ADD_FAILURE() << path << " is missing or empty";
        return all;
    }
    uint64_t length;
    memcpy(&length, file.data(), 8);
    std::string header = file.substr(8, length);
    static const std::map<std::string, int32_t> dtypes = {{"F32", L4J_F32}, {"F16", L4J_F16}, {"BF16", L4J_BF16},
                                                          {"I8", L4J_I8},   {"U8", L4J_U8},   {"I32", L4J_I32},
                                                          {"I64", L4J_I64}};
    // "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}
    for (size_t at = header.find("\":{\"dtype\":\""); at != std::string::npos;
         at = header.find("\":{\"dtype\":\"", at + 1)) {
        size_t begin = header.rfind('"', at - 1) + 1;
        std::string name = header.substr(begin, at - begin);
        size_t type = at + strlen("\":{\"dtype\":\""), end = header.find('"', type);
        Stored stored;
        stored.dtype = dtypes.at(header.substr(type, end - type));
        size_t shape = header.find('[', end) + 1, close = header.find(']', shape);
        std::stringstream dimensions(header.substr(shape, close - shape));
        for (std::string d; std::getline(dimensions, d, ',');) stored.shape.push_back(std::stoll(d));
        size_t offsets = header.find('[', close) + 1, comma = header.find(',', offsets);
        size_t from = 8 + length + std::stoull(header.substr(offsets, comma - offsets));
        size_t to = 8 + length + std::stoull(header.substr(comma + 1));
        stored.bytes.assign(file.begin() + static_cast<int64_t>(from), file.begin() + static_cast<int64_t>(to));
        all[name] = stored;
    }
    return all;
}

} // namespace l4j
