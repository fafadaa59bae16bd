<?php
return function (): void {
    echo 'before';
    if (isset($_GET['flush'])) {
        flush();
        echo ' and after';
    }
    fastcgi_finish_request();
    echo 'not seen';
    usleep(1000 * (int) ($_GET['ms'] ?? 2000));
    error_log('finished ' . ($_GET['mark'] ?? ''));
};
