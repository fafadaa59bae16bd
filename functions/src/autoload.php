<?php

// PSR-4 in one line: Shop\Cart is src/Shop/Cart.php.
spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/' . strtr($class, '\\', '/') . '.php';
    if (is_file($file)) {
        require $file;
    }
});
