<?php

use Shop\Cart;
use Shop\Price;
use Troupe\Request;

// Classes of your own, loaded when they are needed. With Composer you need nothing of this: vendor/autoload.php is found by
// itself. Files under src/ are never functions.
//
//     curl 'localhost:8080/api/shop?apple=3&pear=2'

require_once __DIR__ . '/src/autoload.php';

return function (Request $request): array {
    $cart = new Cart(['apple' => new Price(40), 'pear' => new Price(55)]);
    foreach ($request->query() as $article => $amount) {
        $cart->add((string) $article, (int) $amount);
    }
    return ['lines' => $cart->lines(), 'total' => $cart->total()];
};
