/* corpus FOLDER: gives each file of a folder to the harness, where libFuzzer is not at hand. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int give(const char *folder, const char *name)
{
    char path[4096];
    uint8_t *data = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *from = fopen(path, "rb"), *to = open_memstream((char **)&data, &size);
    if (from == NULL || to == NULL) {
        perror(path);
        return 1;
    }
    for (int byte; (byte = fgetc(from)) != EOF;)
        fputc(byte, to);
    fclose(from);
    fclose(to);
    printf("%s: %zu bytes\n", name, size); /* the last one names the culprit */
    fflush(stdout);
    const int code = LLVMFuzzerTestOneInput(data, size);
    free(data);
    return code;
}

int main(int count, char **arguments)
{
    struct dirent **entries = NULL;
    const int found = count == 2 ? scandir(arguments[1], &entries, NULL, alphasort) : -1;
    int given = 0, code = 0;
    for (int i = 0; i < found; i++) {
        if (entries[i]->d_name[0] != '.') {
            code |= give(arguments[1], entries[i]->d_name);
            given++;
        }
        free(entries[i]);
    }
    free(entries);
    printf("%d inputs\n", given);
    return given == 0 || code != 0;
}
