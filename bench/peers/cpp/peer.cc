// SPDX-License-Identifier: MIT
//
// The C++ peer: libprotobuf with arenas, the official C code of BLAKE3. Checks
// libprotobuf's messages as they are and sorts in place. bench/README.md says
// what a peer is.
#include <google/protobuf/arena.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "blake3.h"
#include "tvix/build/protos/build.pb.h"

namespace {

using google::protobuf::Arena;
using google::protobuf::RepeatedPtrField;
using google::protobuf::io::CodedInputStream;
using tvix::build::v1::BuildRequest;
using tvix::castore::v1::Node;
using Constraints = BuildRequest::BuildConstraints;
using EnvVar = BuildRequest::EnvVar;

constexpr size_t kDigestSize = 32;

enum class Verdict { kValid, kUnsorted, kInvalid };

// ---- rules on one value

bool HasByte(std::string_view value, char byte) {
  return std::memchr(value.data(), byte, value.size()) != nullptr;
}

bool HasNul(std::string_view value) { return HasByte(value, '\0'); }

bool IsName(std::string_view value) {
  return !value.empty() && value.size() <= 255 && value != "." &&
         value != ".." && !HasByte(value, '/') && !HasNul(value);
}

bool IsSymlinkTarget(std::string_view value) {
  return !value.empty() && value.size() <= 4095 && !HasNul(value);
}

bool IsEnvKey(std::string_view value) {
  return !value.empty() && !HasByte(value, '=') && !HasNul(value);
}

// An absolute clean path outside the store.
bool IsHostPath(std::string_view value) {
  if (value.empty() || value[0] != '/' || HasNul(value)) return false;
  if (value.size() == 1) return true;
  constexpr std::string_view kStore = "/nix/store";
  if (value.substr(0, kStore.size()) == kStore &&
      (value.size() == kStore.size() || value[kStore.size()] == '/')) {
    return false;
  }
  for (size_t at = 0; at < value.size();) {
    size_t end = std::min(value.find('/', at + 1), value.size());
    std::string_view part = value.substr(at + 1, end - at - 1);
    if (part.empty() || part == "." || part == "..") return false;
    at = end;
  }
  return value.back() != '/';
}

// ---- rules on messages

template <typename Message>
bool HasUnknownFields(const Message& message) {
  return !message.GetReflection()->GetUnknownFields(message).empty();
}

const std::string& KeyOf(const std::string& value) { return value; }

const std::string& KeyOf(const EnvVar& variable) { return variable.key(); }

const std::string& KeyOf(const Node& node) {
  if (node.has_directory()) return node.directory().name();
  if (node.has_file()) return node.file().name();
  return node.symlink().name();
}

template <typename Inner>
bool IsNodeWithDigest(const Inner& node) {
  return !HasUnknownFields(node) && IsName(node.name()) &&
         node.digest().size() == 32;
}

bool IsNode(const Node& node) {
  if (HasUnknownFields(node)) return false;
  switch (node.node_case()) {
    case Node::kDirectory:
      return IsNodeWithDigest(node.directory());
    case Node::kFile:
      return IsNodeWithDigest(node.file());
    case Node::kSymlink:
      return !HasUnknownFields(node.symlink()) &&
             IsName(node.symlink().name()) &&
             IsSymlinkTarget(node.symlink().target());
    default:
      return false;
  }
}

bool IsEnvVar(const EnvVar& variable) {
  return !HasUnknownFields(variable) && IsEnvKey(variable.key()) &&
         !HasNul(variable.value());
}

bool AreConstraints(const Constraints& constraints) {
  const auto& paths = constraints.available_ro_paths();
  return !HasUnknownFields(constraints) && !constraints.system().empty() &&
         std::all_of(paths.begin(), paths.end(), IsHostPath);
}

bool ObeysRulesOnValues(const BuildRequest& request) {
  const auto& args = request.command_args();
  const auto& outputs = request.outputs();
  const auto& variables = request.environment_vars();
  const auto& inputs = request.inputs();
  return !HasUnknownFields(request) && !args.empty() &&
         std::none_of(args.begin(), args.end(), HasNul) &&
         std::all_of(outputs.begin(), outputs.end(), IsName) &&
         std::all_of(variables.begin(), variables.end(), IsEnvVar) &&
         std::all_of(inputs.begin(), inputs.end(), IsNode) &&
         (!request.has_constraints() || AreConstraints(request.constraints()));
}

// ---- lists

// Sorts a list; returns false if a key is there twice. Clears *was_sorted if
// the list was not.
template <typename Element>
bool Sort(RepeatedPtrField<Element>* list, bool* was_sorted) {
  auto greater_or_equal = [](const auto& a, const auto& b) {
    return KeyOf(a) >= KeyOf(b);
  };
  if (std::adjacent_find(list->begin(), list->end(), greater_or_equal) ==
      list->end()) {
    return true;
  }
  auto less = [](const auto& a, const auto& b) { return KeyOf(a) < KeyOf(b); };
  *was_sorted &= std::is_sorted(list->begin(), list->end(), less);
  std::sort(
      list->pointer_begin(), list->pointer_end(),
      [](const Element* a, const Element* b) { return KeyOf(*a) < KeyOf(*b); });
  return std::adjacent_find(list->begin(), list->end(), greater_or_equal) ==
         list->end();
}

bool IsInput(const RepeatedPtrField<Node>& sorted, const std::string& name) {
  auto found = std::lower_bound(sorted.begin(), sorted.end(), name,
                                [](const Node& node, const std::string& key) {
                                  return KeyOf(node) < key;
                                });
  return found != sorted.end() && KeyOf(*found) == name;
}

// Sorts the request's lists.
Verdict CheckAndSort(BuildRequest* request) {
  bool was_sorted = true;
  bool good = ObeysRulesOnValues(*request) &&
              Sort(request->mutable_outputs(), &was_sorted) &&
              Sort(request->mutable_environment_vars(), &was_sorted) &&
              Sort(request->mutable_inputs(), &was_sorted);
  if (good && request->has_constraints()) {
    Constraints* constraints = request->mutable_constraints();
    good = Sort(constraints->mutable_available_ro_paths(), &was_sorted);
  }
  if (!good) return Verdict::kInvalid;
  for (const std::string& output : request->outputs()) {
    if (IsInput(request->inputs(), output)) return Verdict::kInvalid;
  }
  return was_sorted ? Verdict::kValid : Verdict::kUnsorted;
}

// ---- the program

class Checker {
 public:
  // The verdict on a message; writes its digest unless it is invalid.
  Verdict Check(std::string_view data, uint8_t* digest) {
    arena_.Reset();
    auto* request = Arena::CreateMessage<BuildRequest>(&arena_);
    if (!request->ParseFromArray(data.data(), static_cast<int>(data.size()))) {
      return Verdict::kInvalid;
    }
    Verdict verdict = CheckAndSort(request);
    if (verdict != Verdict::kInvalid) Hash(*request, digest);
    return verdict;
  }

 private:
  void Hash(const BuildRequest& request, uint8_t* digest) {
    size_t size = request.ByteSizeLong();
    if (encoded_.size() < size) encoded_.resize(size);
    request.SerializeWithCachedSizesToArray(encoded_.data());
    blake3_hasher hasher;
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, encoded_.data(), size);
    blake3_hasher_finalize(&hasher, digest, kDigestSize);
  }

  std::vector<char> block_ = std::vector<char>(1 << 20);
  Arena arena_{block_.data(), block_.size()};
  std::vector<uint8_t> encoded_;
};

// The messages of a size-delimited stream.
std::vector<std::string_view> Split(std::string_view stream) {
  std::vector<std::string_view> messages;
  while (!stream.empty()) {
    auto* begin = reinterpret_cast<const uint8_t*>(stream.data());
    CodedInputStream input(
        begin, static_cast<int>(std::min<size_t>(stream.size(), 10)));
    uint32_t size;
    if (!input.ReadVarint32(&size)) throw std::runtime_error("a bad length");
    stream.remove_prefix(input.CurrentPosition());
    messages.push_back(stream.substr(0, size));
    stream.remove_prefix(size);
  }
  return messages;
}

struct Results {
  size_t valid = 0;
  // 32 bytes a message, zeros where there is no digest.
  std::vector<uint8_t> digests;
};

double Repeat(Checker* checker, const std::vector<std::string_view>& messages,
              Results* results) {
  auto start = std::chrono::steady_clock::now();
  results->valid = 0;
  uint8_t* digest = results->digests.data();
  for (std::string_view message : messages) {
    Verdict verdict = checker->Check(message, digest);
    results->valid += verdict == Verdict::kValid;
    if (verdict == Verdict::kInvalid) std::memset(digest, 0, kDigestSize);
    digest += kDigestSize;
  }
  std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  return seconds.count();
}

std::string Hex(const std::vector<uint8_t>& digests) {
  uint8_t digest[kDigestSize];
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, digests.data(), digests.size());
  blake3_hasher_finalize(&hasher, digest, kDigestSize);
  std::string text;
  for (uint8_t byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

void WriteFile(const std::string& path, const std::vector<uint8_t>& data) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(data.data()),
             static_cast<std::streamsize>(data.size()));
}

// Does repetitions over the corpus as stdin says, until it ends.
void Serve(std::string_view corpus) {
  const std::vector<std::string_view> messages = Split(corpus);
  size_t bytes = 0;
  for (std::string_view message : messages) bytes += message.size();
  Checker checker;
  Results results;
  results.digests.resize(messages.size() * kDigestSize);
  for (std::string line; std::getline(std::cin, line);) {
    if (line.rfind("digests ", 0) == 0) {
      WriteFile(line.substr(8), results.digests);
      std::cout << "{}" << std::endl;
      continue;
    }
    size_t repetitions = std::stoul(line.substr(std::strlen("run ")));
    std::cout << "{\"requests\": " << messages.size()
              << ", \"bytes\": " << bytes << ", \"seconds\": [";
    for (size_t i = 0; i < repetitions; ++i) {
      std::cout << (i ? ", " : "") << Repeat(&checker, messages, &results);
    }
    std::cout << "], \"valid\": " << results.valid << ", \"digest\": \""
              << Hex(results.digests) << "\"}" << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " CORPUS\n";
    return 2;
  }
  google::protobuf::SetLogHandler(nullptr);  // It would report each bad string.
  std::ifstream file(argv[1], std::ios::binary);
  std::ostringstream contents;
  contents << file.rdbuf();
  const std::string corpus = contents.str();
  Serve(corpus);
}
