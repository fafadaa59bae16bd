<?php

declare(strict_types=1);

use Troupe\Runtime\Reset;

/* Functions whose effect would outlast the request: the same, with a note to undo it. */

function ini_set(?string $option, string|int|float|bool|null $value): string|false
{
    return Reset::set((string) $option, $value);
}

function set_time_limit(?int $seconds): bool
{
    return Reset::set('max_execution_time', (int) $seconds) !== false;
}

function set_include_path(?string $include_path): string|false
{
    return Reset::set('include_path', (string) $include_path);
}

function mt_srand(?int $seed = 0, ?int $mode = MT_RAND_MT19937): void
{
    Reset::$seeded = true;
    // The other name of mt_srand().
    func_num_args() === 0 ? srand() : srand((int) $seed, (int) $mode);
}
