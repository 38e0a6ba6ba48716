"""The front-end for AMQP 0-10."""
