/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEMANGLE_H
#define DP_SYMBOLIZE_DEMANGLE_H

/*
 * Demangles a C++ (Itanium) or Rust (legacy and v0) name, which may be hostile. The text is for
 * people: C++ parameters are kept, Rust's legacy hash is dropped. Takes up to 3 MiB of stack for
 * the longest C++ names.
 *
 * Returns a string to be freed with free(), or NULL if @name is not mangled, is longer than 64 KiB
 * (C++: 8 KiB), stands for more than 64 KiB of text, or memory is out.
 */
char *dp_demangle(const char *name);

#endif
