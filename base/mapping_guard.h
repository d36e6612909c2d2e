// Keeps a process alive whose mapped files lose bytes: another process cut the file short, or the
// disk below does not read any more. The system says so with SIGBUS at the next access, which would
// be the end.
//
//   GuardMappings();                    // once, early in main
//   auto file = MappedFile::Open(...);  // registers itself
//   if (LostBytes(file->data())) ...    // what was read from it since may be zeros
//
// From the lost byte on, the mapping reads as zeros. So whoever has read from it asks LostBytes
// afterwards, before others see what came of it. docs/adr/0019 says why.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <cstddef>

namespace nestrec {

// Takes SIGBUS over for registered mappings; at other addresses it is what it was before. More
// calls change nothing.
void GuardMappings();

// A mapping of `size` bytes at `data`, page-aligned as mmap gave it, from now until it is
// unmapped. Beyond some thousand mappings at once, further ones are not guarded.
void RegisterMapping(const void* data, size_t size);
void UnregisterMapping(const void* data);

// Whether the registered mapping that holds `address` has lost bytes. False for other addresses.
bool LostBytes(const void* address);

// Whether any has, which costs one load: what to ask first where there are many.
bool AnyLostBytes();

// For who knows by other means that the bytes are not those any more that were verified.
void MarkLost(const void* address);

}  // namespace nestrec
