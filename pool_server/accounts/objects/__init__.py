"""Which person's, and at which account, the things are that providers keep: files, batches, stored responses …"""
