<?php

declare(strict_types=1);

namespace Shop;

final class Cart
{
    /** @var array<string, int> amounts by article */
    private array $amounts = [];

    /** @param array<string, Price> $prices by article */
    public function __construct(private readonly array $prices)
    {
    }

    /** Articles that the shop does not have, and amounts below one, are ignored. */
    public function add(string $article, int $amount): void
    {
        if (isset($this->prices[$article]) && $amount > 0) {
            $this->amounts[$article] = ($this->amounts[$article] ?? 0) + $amount;
        }
    }

    /** @return list<array{article: string, amount: int, price: Price}> */
    public function lines(): array
    {
        $lines = [];
        foreach ($this->amounts as $article => $amount) {
            $lines[] = ['article' => $article, 'amount' => $amount, 'price' => $this->prices[$article]->times($amount)];
        }
        return $lines;
    }

    public function total(): Price
    {
        return array_reduce($this->lines(), static fn (Price $sum, array $line): Price => $sum->plus($line['price']), new Price(0));
    }
}
