/* words: a short list of known words, for messages about an unknown one. */
#ifndef SGDMAP_WORDS_H
#define SGDMAP_WORDS_H

enum { WORDS_MAX = 32, WORDS_LENGTH_MAX = 64 };

struct words {
    const char *list[WORDS_MAX]; /* borrowed */
    int count;
    char joined[256];
};

/* "a, b, c", in `words->joined`; cut at its size. */
const char *words_join(struct words *words);

/* The word that was probably meant: a few letters off, or abbreviated. NULL if none is near. */
const char *words_nearest(const struct words *words, const char *given);

#endif
