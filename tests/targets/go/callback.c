// SPDX-License-Identifier: MIT
#include "_cgo_export.h"

int callBack(int n);

int callBack(int n)
{
	return goCallback(n) + 1;
}
