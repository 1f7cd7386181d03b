/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEMANGLE_H
#define DP_SYMBOLIZE_DEMANGLE_H

/*
 * Demangles a C++ (Itanium) or Rust (legacy and v0) name.
 *
 * Returns a string to be freed with free(), or NULL if @name is not mangled, is longer than 64 KiB,
 * or memory is out. The text is for people: C++ parameters are kept, Rust's legacy hash is dropped.
 */
char *dp_demangle(const char *name);

#endif
