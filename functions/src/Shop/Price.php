<?php

declare(strict_types=1);

namespace Shop;

/** An amount of money in cents; in JSON it reads "1.20". */
final class Price implements \JsonSerializable
{
    public function __construct(public readonly int $cents)
    {
    }

    public function times(int $amount): self
    {
        return new self($this->cents * $amount);
    }

    public function plus(self $other): self
    {
        return new self($this->cents + $other->cents);
    }

    public function jsonSerialize(): string
    {
        return sprintf('%d.%02d', intdiv($this->cents, 100), $this->cents % 100);
    }
}
