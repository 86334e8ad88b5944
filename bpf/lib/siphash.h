/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * SipHash-2-4 with 128 bits of output (J.-P. Aumasson and D. J. Bernstein, INDOCRYPT 2012; the longer output
 * is the authors' reference code's) of a message that is whole 64-bit words in little-endian order. Pure C.
 */
#ifndef ANIC_LIB_SIPHASH_H
#define ANIC_LIB_SIPHASH_H

#include <linux/types.h>

struct anic_sip {
	__u64 v0;
	__u64 v1;
	__u64 v2;
	__u64 v3;
};

#define ANIC_ROTATE(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))

/*
 * Keeps what was computed so far as it is: clang for BPF, which has instructions of two operands, would
 * reorder sums for the price of a sixth more instructions, and spills.
 */
#define ANIC_SIP_KEEP(s) __asm__("" : "+r"((s)->v0), "+r"((s)->v1), "+r"((s)->v2), "+r"((s)->v3))

/* (a, b) = (a + b, (b rotated) ^ (a + b)): the quarter that a round has four of. */
#define ANIC_SIP_MIX(s, a, b, bits)                                                                          \
	do {                                                                                                 \
		(s)->a += (s)->b;                                                                            \
		ANIC_SIP_KEEP(s);                                                                            \
		(s)->b = ANIC_ROTATE((s)->b, bits);                                                          \
		(s)->b ^= (s)->a;                                                                            \
		ANIC_SIP_KEEP(s);                                                                            \
	} while (0)

static inline __attribute__((always_inline)) void anic_sip_round(struct anic_sip *s)
{
	ANIC_SIP_MIX(s, v0, v1, 13);
	ANIC_SIP_MIX(s, v2, v3, 16);
	s->v0 = ANIC_ROTATE(s->v0, 32);
	ANIC_SIP_KEEP(s);
	ANIC_SIP_MIX(s, v2, v1, 17);
	ANIC_SIP_MIX(s, v0, v3, 21);
	s->v2 = ANIC_ROTATE(s->v2, 32);
	ANIC_SIP_KEEP(s);
}

static inline __attribute__((always_inline)) void anic_sip_begin(struct anic_sip *s, const __u64 key[2])
{
	s->v0 = key[0] ^ 0x736f6d6570736575ULL;
	s->v1 = key[1] ^ 0x646f72616e646f6dULL ^ 0xee;
	s->v2 = key[0] ^ 0x6c7967656e657261ULL;
	s->v3 = key[1] ^ 0x7465646279746573ULL;
}

static inline __attribute__((always_inline)) void anic_sip_add(struct anic_sip *s, __u64 word)
{
	s->v3 ^= word;
	anic_sip_round(s);
	anic_sip_round(s);
	s->v0 ^= word;
}

static inline __attribute__((always_inline)) void anic_sip_end(struct anic_sip *s, __u64 words, __u64 out[2])
{
	anic_sip_add(s, words * 8 << 56); /* the length in bytes, modulo 256 */
	s->v2 ^= 0xee;
	anic_sip_round(s);
	anic_sip_round(s);
	anic_sip_round(s);
	anic_sip_round(s);
	out[0] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
	s->v1 ^= 0xdd;
	anic_sip_round(s);
	anic_sip_round(s);
	anic_sip_round(s);
	anic_sip_round(s);
	out[1] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

#endif
