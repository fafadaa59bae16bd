<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/*
 * Loads the runtime, for the zygote and for an exec'ed process alike. No user code has run yet.
 *
 * PHP reads its first script from standard input (start.php), because only then it leaves the constants STDIN, STDOUT and
 * STDERR undefined: they are defined later, for the descriptors that a process has of its own.
 */

// One byte past the output buffer, and PHP considers the headers sent: sessions would be broken for the life of the process.
require __DIR__ . '/output.php';
Output::capture();

require __DIR__ . '/stdio.php';
Stdio::hold();

if (function_exists('header')) {
    fwrite(Stdio::$error, "the runtime cannot declare header(): disable_functions lacks the names in defaults.ini; append to it, do not replace it\n");
    exit(1);
}

foreach ([
    'quiet', 'channel', 'call', 'headers', 'callback', 'header_functions', 'cookies', 'cookie_functions', 'input', 'uploads', 'upload_functions',
    'superglobals', 'sessions', 'session_functions', 'reset', 'reset_functions', 'shutdown', 'shutdown_functions',
    'output_functions', 'sapi_functions', 'failure', 'reply', 'code', 'request', 'response', 'cache', 'descriptors', 'boot', 'loop',
] as $file) {
    require __DIR__ . "/$file.php";
}
unset($file);
