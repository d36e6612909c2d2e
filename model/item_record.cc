#include "model/item_record.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

// Walks the record without building a document; keeps the wanted top-level fields.
class FieldCollector : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit FieldCollector(std::span<const std::string> names)
      : names_(names), values_(names.size()) {}

  std::vector<std::string> TakeValues() && { return std::move(values_); }

  bool null() override { return EndValue(); }
  bool boolean(bool value) override { return Append(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return Append(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Append(std::to_string(value)); }
  bool number_float(number_float_t /*value*/, const string_t& written) override {
    return Append(written);
  }
  bool string(string_t& value) override { return Append(value); }
  bool binary(binary_t& /*value*/) override { return EndValue(); }
  bool start_object(size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t /*elements*/) override { return depth_ > 0 && Open(); }
  bool end_array() override { return Close(); }

  bool key(string_t& value) override {
    if (depth_ != 1) return true;
    const auto found = std::find(names_.begin(), names_.end(), value);
    target_ = nullptr;
    if (found == names_.end()) return true;
    const size_t index = static_cast<size_t>(found - names_.begin());
    if (std::find(seen_.begin(), seen_.end(), index) != seen_.end()) return true;
    seen_.push_back(index);
    target_ = &values_[index];
    first_ = true;
    return true;
  }

  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

 private:
  bool Append(absl::string_view text) {
    if (target_ != nullptr) {
      if (!first_) target_->append(", ");
      absl::StrAppend(target_, text);
      first_ = false;
    }
    return EndValue();
  }
  bool Open() {
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return EndValue();
  }
  // False, which stops the parser, once every wanted field is complete.
  bool EndValue() { return depth_ > 1 || seen_.size() < names_.size(); }

  std::span<const std::string> names_;
  std::vector<std::string> values_;
  std::vector<size_t> seen_;
  std::string* target_ = nullptr;
  bool first_ = true;
  int64_t depth_ = 0;
};

class Visitor : public nlohmann::json_sax<nlohmann::json> {
 public:
  using Visit = absl::FunctionRef<void(absl::string_view, const RecordValue&)>;
  explicit Visitor(Visit visit) : visit_(visit) {}

  bool null() override { return true; }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(number_integer_t value) override { return Value(static_cast<double>(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    return Value(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t& /*written*/) override {
    return Value(value);
  }
  bool string(string_t& value) override { return Value(absl::string_view(value)); }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_object(size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t /*elements*/) override { return depth_ > 0 && Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& value) override {
    if (depth_ == 1) field_ = value;
    return true;
  }
  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

 private:
  bool Value(const RecordValue& value) {
    if (depth_ > 0) visit_(field_, value);
    return depth_ > 0;
  }
  bool Open() {
    ++depth_;
    return true;
  }
  bool Close() { return --depth_ > 0; }

  Visit visit_;
  std::string field_;
  int64_t depth_ = 0;
};

// The text at `from` up to the closing quote; nothing where it takes more than looking for that
// quote: escapes, what JSON does not allow, a quote that is missing.
std::optional<absl::string_view> PlainString(absl::string_view record, size_t from) {
  const size_t end = record.find('"', from);
  if (end == absl::string_view::npos) return std::nullopt;
  const absl::string_view text = record.substr(from, end - from);
  const bool plain = std::none_of(text.begin(), text.end(), [](char c) {
    return c == '\\' || static_cast<unsigned char>(c) < 0x20;
  });
  return plain && IsValidUtf8(text) ? std::optional(text) : std::nullopt;
}

// The value of a field, where it is a plain string and only plain strings and numbers stand before
// it, as in most records: many times as fast as a parser. Nothing: ask the parser.
std::optional<absl::string_view> QuickField(absl::string_view record, absl::string_view name) {
  size_t at = 0;
  const auto skip = [&](auto skipped) {
    while (at < record.size() && skipped(record[at])) ++at;
  };
  const auto next = [&] {
    skip([](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; });
    return at < record.size() ? record[at] : '\0';
  };
  const auto take = [&](char wanted) {
    const bool taken = next() == wanted;
    at += taken ? 1 : 0;
    return taken;
  };
  for (char before = '{'; take(before); before = ',') {
    if (!take('"')) return std::nullopt;
    const std::optional<absl::string_view> key = PlainString(record, at);
    if (!key.has_value()) return std::nullopt;
    at += key->size() + 1;
    if (!take(':')) return std::nullopt;
    if (take('"')) {
      const std::optional<absl::string_view> value = PlainString(record, at);
      if (!value.has_value() || *key == name) return value;
      at += value->size() + 1;
    } else {
      next();
      const size_t begin = at;
      skip([](char c) {
        return (c >= '0' && c <= '9') || c == '-' || c == '.' || c == 'e' || c == 'E';
      });
      if (at == begin || *key == name) return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace

void VisitRecord(absl::string_view record,
                 absl::FunctionRef<void(absl::string_view, const RecordValue&)> visit) {
  Visitor visitor(visit);
  nlohmann::json::sax_parse(record.begin(), record.end(), &visitor);
}

std::vector<std::string> RecordFields(absl::string_view record,
                                      std::span<const std::string> names) {
  if (names.size() == 1) {
    if (const auto value = QuickField(record, names.front())) return {std::string(*value)};
  }
  FieldCollector collector(names);
  nlohmann::json::sax_parse(record.begin(), record.end(), &collector);
  return std::move(collector).TakeValues();
}

std::string RecordField(absl::string_view record, absl::string_view name) {
  const std::string wanted(name);
  return std::move(RecordFields(record, {&wanted, 1}).front());
}

}  // namespace nestrec
