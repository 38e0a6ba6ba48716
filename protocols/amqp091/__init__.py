"""AMQP 0-9-1 with RabbitMQ's extensions, and 0-9 and 0-8 as variants of it."""
