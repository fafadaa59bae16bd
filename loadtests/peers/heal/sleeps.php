<?php
return function (): string {
    usleep(1000 * (int) $_GET['ms']);
    return 'slept';
};
