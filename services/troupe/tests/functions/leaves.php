<?php
// Leaves two programs running behind itself: one ends when it is asked to, and notes that; the other one does not.
return function (): array {
    $note = escapeshellarg($_GET['note']);
    $start = static fn (string $trap): int => (int) shell_exec("sh -c 'trap \"$trap\" TERM; while :; do sleep 0.05; done' >/dev/null 2>&1 & echo \$!");
    return ['willing' => $start("echo asked >$note; exit"), 'deaf' => $start('')];
};
