#include "spec.h"

#include <sstream>
#include <stdexcept>

Spec::Spec(const std::string &text) : text_(text) {
    std::istringstream parts(text);
    std::getline(parts, family_, '/');
    for (std::string part; std::getline(parts, part, '/');) {
        size_t equals = part.find('=');
        if (equals == std::string::npos || equals == 0) {
            throw std::invalid_argument(text + ": found '" + part + "', expected key=value");
        }
        if (!values_.emplace(part.substr(0, equals), part.substr(equals + 1)).second) {
            throw std::invalid_argument(text + ": " + part.substr(0, equals) + " is given twice");
        }
    }
}

std::string Spec::word(const std::string &key, const std::string &otherwise) const {
    read_.insert(key);
    auto found = values_.find(key);
    return found == values_.end() ? otherwise : found->second;
}

std::string Spec::word(const std::string &key) const {
    if (!values_.count(key)) throw std::invalid_argument(text_ + ": needs " + key + "=");
    return word(key, "");
}

double Spec::real(const std::string &key, double otherwise) const {
    std::string text = word(key, "");
    if (text.empty()) return otherwise;
    size_t end = 0;
    double value = 0;
    try {
        value = std::stod(text, &end);
    } catch (const std::logic_error &) {
        end = 0;
    }
    if (end != text.size()) throw std::invalid_argument(text_ + ": " + key + " is '" + text + "', expected a number");
    return value;
}

int64_t Spec::number(const std::string &key, int64_t otherwise) const {
    return static_cast<int64_t>(real(key, static_cast<double>(otherwise)));
}

int64_t Spec::number(const std::string &key) const {
    word(key);
    return number(key, 0);
}

std::vector<int64_t> Spec::numbers(const std::string &key) const {
    std::istringstream parts(word(key));
    std::vector<int64_t> all;
    for (std::string part; std::getline(parts, part, ',');) all.push_back(Spec("_/n=" + part).number("n"));
    if (all.empty()) throw std::invalid_argument(text_ + ": " + key + " is empty, expected numbers");
    return all;
}

void Spec::expect_all_read() const {
    for (const auto &entry : values_) {
        if (!read_.count(entry.first)) {
            throw std::invalid_argument(text_ + ": " + family_ + " has no key '" + entry.first + "'");
        }
    }
}
