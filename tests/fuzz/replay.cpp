// SPDX-License-Identifier: Apache-2.0
/// Gives a fuzz target the files that are named, and those of the folders that are, without libFuzzer.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& file : std::filesystem::directory_iterator(argv[i])) files.push_back(file.path());
    } else {
      files.emplace_back(argv[i]);
    }
  }
  std::ranges::sort(files);
  for (const auto& path : files) {
    std::fprintf(stderr, "%s\n", path.c_str());  // before: a fault ends the program
    std::ifstream file(path, std::ios::binary);
    if (!file) return 1;
    std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
    bytes.shrink_to_fit();  // the block ends where the input ends, so that a read beyond it is seen
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("%zu inputs\n", files.size());
  return files.empty() ? 1 : 0;
}
