<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** Uploaded files: php-pool has parsed them out of the body and spooled them; here they become $_FILES. */
final class Uploads
{
    /** @var array<string, true> the temporary files of this request that nobody has moved away yet */
    private static array $paths = [];

    /** @param list<array{string, string, string, string, int, int}> $files as accept() has them */
    public static function take(array $files): void
    {
        foreach ($files as [, , , $path]) {
            if ($path !== '') {
                self::$paths[$path] = true;
            }
        }
    }

    /**
     * @param list<array{string, string, string, string, int, int}> $files field name, client's file name, type, path, error, size
     * @param array<string|int, mixed> $form
     *
     * @return array<string|int, mixed> in PHP's shape: `docs[a][]` becomes $_FILES['docs']['name']['a'][0]
     */
    public static function accept(array $files, array $form): array
    {
        $query = [];
        $longest = self::longest($form);
        foreach ($files as [$field, $name, $type, $path, $error, $size]) {
            if ($longest > 0 && $size > $longest) {
                // The file itself goes with the others that nobody has moved away.
                [$path, $error, $size] = ['', UPLOAD_ERR_FORM_SIZE, 0];
            }
            $bracket = strpos($field, '[');
            $base = $bracket === false ? $field : substr($field, 0, $bracket);
            $rest = $bracket === false ? '' : substr($field, $bracket);
            if ($base === '' || ($rest !== '' && !self::balanced($rest))) {
                continue;
            }
            $parts = [
                // The client's own name without its folders; the full one stands beside it, as since PHP 8.1.
                'name' => preg_replace('~^.*[/\\\\]~s', '', $name),
                'full_path' => $name,
                'type' => $error === UPLOAD_ERR_OK ? $type : '',
                'tmp_name' => $path,
                'error' => (string) $error,
                'size' => (string) $size,
            ];
            foreach ($parts as $part => $value) {
                $query[] = urlencode($base) . "[$part]" . self::encoded($rest) . '=' . urlencode((string) $value);
            }
        }
        // parse_str() counts empty brackets and mangles names by PHP's own rules.
        parse_str(implode('&', $query), $result);
        foreach ($result as &$file) {
            foreach (['error', 'size'] as $number) {
                $file[$number] = self::integers($file[$number]);
            }
        }
        return $result;
    }

    /**
     * How long the form itself says that a file may be, by a field of this name however it is spelt; 0 for any length. PHP heeds it
     * for the files behind it; here, where nobody knows what came first, it is for all.
     */
    private static function longest(array $form): int
    {
        $fields = array_change_key_case($form);
        return is_string($fields['max_file_size'] ?? null) ? (int) $fields['max_file_size'] : 0;
    }

    public static function isUploaded(string $path): bool
    {
        return isset(self::$paths[$path]);
    }

    public static function move(string $from, string $to): bool
    {
        if (!isset(self::$paths[$from])) {
            return false;
        }
        // Across file systems rename() copies.
        if (!rename($from, $to)) {
            return false;
        }
        unset(self::$paths[$from]);
        // The temporary file was private; what umask says holds for a file that a function keeps.
        Quiet::call(static fn () => chmod($to, 0666 & ~umask()));
        return true;
    }

    /** Removes what was not moved away. */
    public static function reset(): void
    {
        foreach (self::$paths as $path => $_) {
            Quiet::call(static fn () => unlink((string) $path));
        }
        self::$paths = [];
    }

    private static function balanced(string $brackets): bool
    {
        return preg_match('~^(\[[^\[\]]*\])+$~', $brackets) === 1;
    }

    private static function encoded(string $brackets): string
    {
        return str_replace(['%5B', '%5D'], ['[', ']'], urlencode($brackets));
    }

    private static function integers(mixed $value): mixed
    {
        return is_array($value) ? array_map(self::integers(...), $value) : (int) $value;
    }
}
