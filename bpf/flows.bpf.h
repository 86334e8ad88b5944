/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The flow cache: verdicts of recent flows, in an array of sets of two ways.
 *
 * Its memory is fixed. No lock: an entry that two CPUs wrote at once does not match its tag. A new generation
 * voids every entry, because the generation is in the key. Random sources cannot push flows in use out: an
 * entry has to be missed ANIC_FLOW_CONFIDENCE_MAX times without a hit between before another takes its place.
 * Nobody can aim at an entry: the hash has random keys.
 */
#ifndef ANIC_FLOWS_BPF_H
#define ANIC_FLOWS_BPF_H

#include "lib/parse.h"
#include "maps.bpf.h"

#define ANIC_FLOW_SET(hash) ((__u32)((hash) >> (64 - ANIC_FLOW_SETS_LOG2)))
#define ANIC_FLOW_BUCKET(hash)                                                                               \
	((__u32)((hash) >> (64 - ANIC_FLOW_SETS_LOG2 - ANIC_STEER_BUCKETS_LOG2)) & (ANIC_STEER_BUCKETS - 1))
#define ANIC_FLOW_TAG(hash, generation) ((__u32)((hash) >> 16) ^ (generation))

/* What a pair of 32-bit words adds. */
#define ANIC_HASH_PAIR(a, b, keys) ((__u64)((__u32)(a) + (keys)[0]) * (__u32)((__u32)(b) + (keys)[1]))

/*
 * NH over pairs of 32-bit words (J. Black et al., "UMAC: Fast and Secure Message Authentication", CRYPTO
 * 1999), whose sums differ for two keys but for one chance in 2^32, then multiply-shift (M. Dietzfelbinger et
 * al., J. Algorithms 25, 1997) to an index. Both are universal: without the random keys nobody finds flows
 * that meet more often than by chance. The shift between, which loses nothing, is for sequences: consecutive
 * ports or addresses would crowd under some keys.
 */
static __always_inline __u64 anic_hash(const struct anic_key *key, const struct anic_state *state, int ipv6,
				       int out)
{
	const __u64 *a = key->addresses_be;
	const __u32 *k = state->hash_keys;
	__u64 h;

	h = ANIC_HASH_PAIR(key->word, key->word >> 32, &k[0]) + ANIC_HASH_PAIR(a[0], a[0] >> 32, &k[2]);
	if (ipv6) {
		h += ANIC_HASH_PAIR(a[1], a[1] >> 32, &k[4]);
		h += ANIC_HASH_PAIR(a[2], a[2] >> 32, &k[6]);
		h += ANIC_HASH_PAIR(a[3], a[3] >> 32, &k[8]);
	}
	if (out) {
		h += ANIC_HASH_PAIR(key->cgroup, key->cgroup >> 32, &k[10]);
		h += ANIC_HASH_PAIR(key->mark, 0, &k[12]);
	}
	return (h ^ h >> 32) * state->hash_factor;
}

/* Whether it is this key's. The tag says that the generation is the same. `out`: at egress. */
static __always_inline int anic_flow_is(const struct anic_flow *flow, __u64 word, const struct anic_key *key,
					__u32 tag, int ipv6, int out)
{
	const __u64 *ours = flow->key.addresses_be, *theirs = key->addresses_be;
	__u64 differs = (flow->key.word ^ key->word) | (ours[0] ^ theirs[0]) | ((__u32)(word >> 32) ^ tag);

	if (ipv6)
		differs |= (ours[1] ^ theirs[1]) | (ours[2] ^ theirs[2]) | (ours[3] ^ theirs[3]);
	if (out)
		differs |= (flow->key.cgroup ^ key->cgroup) | (flow->key.mark ^ key->mark);
	return !differs;
}

/* The verdict of a flow, or 0. */
static __always_inline __u32 anic_flow_find(struct anic_flow_set *set, const struct anic_key *key, __u32 tag,
					    int ipv6, int out)
{
	struct anic_flow *flow = &set->ways[0];
	__u64 word = ANIC_READ_ONCE(flow->word); /* tag and verdict are of one write */

	if (!anic_flow_is(flow, word, key, tag, ipv6, out)) {
		flow = &set->ways[1];
		word = ANIC_READ_ONCE(flow->word);
		if (!anic_flow_is(flow, word, key, tag, ipv6, out))
			return 0;
	}
	if (ANIC_FLOW_CONFIDENCE(word) != ANIC_FLOW_CONFIDENCE_MAX)
		flow->word = ANIC_FLOW_WORD(ANIC_FLOW_VERDICT(word), ANIC_FLOW_CONFIDENCE_MAX, tag);
	return ANIC_FLOW_VERDICT(word);
}

/* Keeps a verdict, or wears the entry down that is in its place. */
static __always_inline void anic_flow_keep(struct anic_flow_set *set, const struct anic_key *key, __u32 tag,
					   __u32 verdict)
{
	struct anic_flow *first = &set->ways[0], *second = &set->ways[1], *flow = first;
	__u64 word;

	if (first->key.generation == key->generation &&
	    (second->key.generation != key->generation ||
	     ANIC_FLOW_CONFIDENCE(second->word) < ANIC_FLOW_CONFIDENCE(first->word)))
		flow = second;
	word = flow->word;
	if (flow->key.generation == key->generation && ANIC_FLOW_CONFIDENCE(word)) {
		flow->word = word - (1U << 28);
		return;
	}
	flow->word = 0; /* no tag while the key is in the making */
	flow->key = *key;
	flow->word = ANIC_FLOW_WORD(verdict, 0, tag);
}

#endif
