// What to time, as text: a family, then key=value in any order, such as "gemm/op=nt/m=512/k=576/n=576/who=openblas/threads=2".
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

class Spec {
public:
    // Throws std::invalid_argument for text of another form.
    explicit Spec(const std::string &text);

    const std::string &text() const { return text_; }
    const std::string &family() const { return family_; }

    // The value of a key; without a default the key must be there.
    std::string word(const std::string &key) const;
    std::string word(const std::string &key, const std::string &otherwise) const;
    int64_t number(const std::string &key) const;
    int64_t number(const std::string &key, int64_t otherwise) const;
    double real(const std::string &key, double otherwise) const;
    std::vector<int64_t> numbers(const std::string &key) const; // "576,192,192"

    // Throws for a key that nobody asked for: a misspelt one would otherwise time something else.
    void expect_all_read() const;

private:
    std::string text_, family_;
    std::map<std::string, std::string> values_;
    mutable std::set<std::string> read_;
};
