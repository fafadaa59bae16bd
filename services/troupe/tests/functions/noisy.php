<?php
return function (): array {
    fwrite(STDOUT, "noise on stdout\n");
    fwrite(STDERR, "noise on stderr\n");
    passthru('echo noise from a child');
    trigger_error('a warning to be logged', E_USER_WARNING);
    return ['quiet' => true];
};
