/* words: the word that was meant. */
#include "words.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *words_join(struct words *words)
{
    size_t used = 0;
    words->joined[0] = '\0';
    for (int i = 0; i < words->count && used < sizeof words->joined; i++)
        used += (size_t)snprintf(words->joined + used, sizeof words->joined - used, "%s%s", i > 0 ? ", " : "",
                                 words->list[i]);
    return words->joined;
}

/* Levenshtein's distance; both words at most WORDS_LENGTH_MAX long, else "far". */
static size_t edit_distance(const char *a, const char *b)
{
    const size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > WORDS_LENGTH_MAX || b_length > WORDS_LENGTH_MAX)
        return SIZE_MAX;
    size_t row[WORDS_LENGTH_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t above = row[j];
            const size_t change = diagonal + (a[i - 1] != b[j - 1]);
            const size_t least = above < row[j - 1] ? above : row[j - 1];
            row[j] = change < least + 1 ? change : least + 1;
            diagonal = above;
        }
    }
    return row[b_length];
}

const char *words_nearest(const struct words *words, const char *given)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (int i = 0; i < words->count; i++) {
        const char *word = words->list[i];
        const size_t given_length = strlen(given);
        size_t distance = edit_distance(given, word);
        if (given_length >= 3 && strncmp(given, word, given_length) == 0)
            distance = 1; /* an abbreviation */
        if (distance <= 1 + strlen(word) / 4 && distance < best_distance) {
            best = word;
            best_distance = distance;
        }
    }
    return best;
}
