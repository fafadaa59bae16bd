<?php

declare(strict_types=1);

/* The #[Cache] attribute. */

return [
    'an attribute becomes header lines' => static function (): void {
        $pool = new Pool([
            'closure.php' => 'use Troupe\Cache; return #[Cache(ttl: 60, groups: ["a", "b\"c"], vary: ["Accept-Language"])] function (): array { return []; };',
            'arrow.php' => 'return #[Troupe\Cache(5, staleWhileRevalidate: 10, staleIfError: 20)] fn () => "x";',
            'named.php' => 'use Troupe\Cache; #[Cache(7)] function named(): string { return "x"; } return named(...);',
            'object.php' => 'use Troupe\Cache; class Invoked { #[Cache(8)] public function __invoke(): string { return "x"; } } return new Invoked;',
            'stream.php' => 'use Troupe\Cache; return #[Cache(9)] function () { yield "x"; };',
            'plain.php' => 'return fn () => "x";',
        ]);
        same([], $pool->ready['errors']);
        $p = $pool->process();
        $lines = static fn (string $function): array => array_values(array_filter($p->call($function)['head'], static fn (string $line): bool => !str_starts_with($line, 'Content-')));
        same(['Troupe-Cache-Control: max-age=60', 'Cache-Groups: "a", "b\"c"', 'Vary: Accept-Language'], $lines('closure'));
        same(['Troupe-Cache-Control: max-age=5, stale-while-revalidate=10, stale-if-error=20'], $lines('arrow'));
        same([['Troupe-Cache-Control: max-age=7'], ['Troupe-Cache-Control: max-age=8'], ['Troupe-Cache-Control: max-age=9']], [$lines('named'), $lines('object'), $lines('stream')]);
        same([], $lines('plain'), 'nothing is left of the call before');
        $pool->close();
    },

    'what the function says of an answer comes first' => static function (): void {
        $pool = new Pool([
            'own.php' => 'use Troupe\Cache; return #[Cache(60)] function () { header("Cache-Control: no-store"); return "x"; };',
            'target.php' => 'use Troupe\Cache; return #[Cache(60)] function () { header("Troupe-Cache-Control: max-age=1"); return "x"; };',
            'session.php' => 'use Troupe\Cache; return #[Cache(60)] function () { session_start(); return "x"; };',
            'error.php' => 'use Troupe\Cache; return #[Cache(60)] function () { http_response_code(500); return "x"; };',
            'vary.php' => 'use Troupe\Cache; return #[Cache(60, vary: ["Accept"])] function () { header("Vary: Cookie"); return "x"; };',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        foreach (['own', 'session', 'error'] as $function) {
            same(false, str_contains(implode("\n", $p->call($function)['head']), 'Troupe-Cache-Control'), $function);
        }
        same(1, substr_count(implode("\n", $p->call('target')['head']), 'Troupe-Cache-Control'));
        $head = $p->call('vary')['head'];
        same([true, true], [in_array('Vary: Cookie', $head, true), in_array('Vary: Accept', $head, true)]);
        $pool->close();
    },

    'a function says of one answer how it is cached' => static function (): void {
        $pool = new Pool([
            'keep.php' => 'use Troupe\Cache; return #[Cache(60, vary: ["Accept"])] function () { Cache::keep(5, groups: ["one"], staleIfError: 9); return "x"; };',
            'bare.php' => 'return function () { Troupe\Cache::skip(); Troupe\Cache::keep(ttl: 7); return "x"; };',
            'skip.php' => 'use Troupe\Cache; return #[Cache(60)] function () { Cache::skip(); return "x"; };',
            'changed.php' => 'use Troupe\Cache; return function () { Cache::changed("a", "b\"c"); Cache::changed("d"); return "x"; };',
            'error.php' => 'use Troupe\Cache; return function () { Cache::keep(60); http_response_code(404); return "x"; };',
            'wrong.php' => 'use Troupe\Cache; return function () { try { Cache::keep(-1); } catch (ValueError) { Cache::changed("a\n"); } };',
            'plain.php' => 'return fn () => "x";',
        ]);
        same([], $pool->ready['errors']);
        $p = $pool->process();
        $lines = static fn (string $function): array => array_values(array_filter($p->call($function)['head'], static fn (string $line): bool => !str_starts_with($line, 'Content-')));
        same(['Troupe-Cache-Control: max-age=5, stale-if-error=9', 'Cache-Groups: "one"'], $lines('keep'));
        same(['Troupe-Cache-Control: max-age=7'], $lines('bare'));
        same(['Troupe-Cache-Control: no-store'], $lines('skip'));
        same(['Cache-Group-Invalidation: "a", "b\"c"', 'Cache-Group-Invalidation: "d"'], $lines('changed'));
        same([], $lines('error'), 'an error is not kept');
        same(500, $p->call('wrong')['status']);
        same([], $lines('plain'), 'nothing is left of the call before');
        $pool->close();
    },

    'an attribute that cannot be is an error of its file' => static function (): void {
        $pool = new Pool([
            'ttl.php' => 'use Troupe\Cache; return #[Cache(-1)] fn () => 1;',
            'group.php' => 'use Troupe\Cache; return #[Cache(1, groups: ["a\nb"])] fn () => 1;',
            'vary.php' => 'use Troupe\Cache; return #[Cache(1, vary: ["*"])] fn () => 1;',
            'good.php' => 'return fn () => 1;',
        ]);
        same(3, count($pool->ready['errors']));
        contains('#[Cache]', $pool->ready['errors'][0]['message']);
        same(['good'], array_column($pool->ready['functions'], 'name'));
        $pool->close();
    },
];
