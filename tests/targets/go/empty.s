//go:build !cgo
// +build !cgo

/* SPDX-License-Identifier: MIT */
/* Lets functions without a body be declared. */
