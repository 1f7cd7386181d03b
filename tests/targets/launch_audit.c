/* SPDX-License-Identifier: MIT */
/* An audit module (rtld-audit(7)): loaded, with a C library of its own, before the program's
 * libraries. */
unsigned la_version(unsigned version);

unsigned la_version(unsigned version)
{
	return version;
}
