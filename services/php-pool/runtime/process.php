<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/*
 * A process without a zygote: where PHP has no pcntl, and where every call gets a fresh PHP.
 *
 *     php -d … -- runtime/process.php RUN/boot.json ID < runtime/start.php
 *
 * Its standard descriptors are its own from the start. READY tells, besides, what a zygote tells when it is ready.
 */

require __DIR__ . '/load.php';

(static function (string $configuration, string $id): void {
    $boot = new Boot($configuration);
    if (function_exists('posix_setpgid')) {
        posix_setpgid(0, 0);
    }
    Shutdown::arm();
    Stdio::defineConstants();
    $boot->load();
    Channel::open(dirname($configuration) . "/$id");
    (new Loop($boot))->serve(['php' => PHP_VERSION, 'functions' => $boot->functions, 'errors' => $boot->errors]);
    exit(0);
})($argv[2], $argv[3]);
