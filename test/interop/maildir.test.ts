/** The comparison of a delivered file with what was sent, on files written by hand: no server is needed. */

import { describe, expect, it } from "vitest";
import { contentOf, fieldsNamed } from "./maildir.ts";
import { ofSize } from "./messages.ts";

const top = "Return-Path: <a@b.example>\nX-Original-To: x@c.example\nDelivered-To: x@c.example\n";
const received = "Received: from b.example\n\tby c.example; Tue, 1 Sep 2026 08:00:00 +0000\n";

describe("contentOf", () => {
  it.each([
    ["a message", "Subject: x\n\ntext\n"],
    ["trailing blanks, empty lines at the end", "Subject: x \t\n\ntext  \n\n\n"],
    ["a bare CR, and one before the line end", "Subject: x\n\na\rb\r\n"],
    ["no body", "Subject: x\n\n"],
    ["no empty line", "Subject: x\n"],
    ["no header", "\ntext\n"],
    ["a first line that is no field", "no field\n\ntext\n"],
    ["delivery fields of its own below another", "Subject: x\nReturn-Path: <y>\n\n"],
  ])("returns what is below the trace fields: %s", (_, message) => {
    const { added, content } = contentOf(Buffer.from(top + received + received + message));

    const names = added.map((field) => field.name).join(" ");
    expect(names).toBe("Return-Path X-Original-To Delivered-To Received Received");
    expect(content.toString()).toBe(message.replaceAll("\n", "\r\n"));
  });

  it("leaves Received fields that the message had when it was sent", () => {
    const { added, content } = contentOf(Buffer.from(`${top + received + received}Subject: x\n\n`), 1);

    expect(added).toHaveLength(4);
    expect(content.toString()).toBe(`${received}Subject: x\n\n`.replaceAll("\n", "\r\n"));
  });

  it("leaves a Return-Path that the message had below the last Received field", () => {
    const { content } = contentOf(Buffer.from(`${top + received}Return-Path: <mine>\n\n`));

    expect(content.toString()).toBe("Return-Path: <mine>\r\n\r\n");
  });

  it("keeps octets above 127", () => {
    const body = Buffer.from(Array.from({ length: 128 }, (_, index) => 128 + index));

    const { content } = contentOf(Buffer.concat([Buffer.from(`${top + received}X: y\n\n`), body]));

    expect(content.subarray(-128)).toEqual(body);
  });

  it.each([
    ["Subject: x\n\ntext\n", "Subject: x\r\n", "text\r\n"],
    ["Subject: x\n\n", "Subject: x\r\n", ""],
    ["Subject: x\n", "Subject: x\r\n", undefined],
    ["\ntext\n", "", "text\r\n"],
  ])("tells header and body apart: %j", (message, header, body) => {
    const result = contentOf(Buffer.from(top + message));

    expect(result.header.toString()).toBe(header);
    expect(result.body?.toString()).toBe(body);
  });
});

describe("fieldsNamed", () => {
  it("unfolds, and ignores the case of names", () => {
    const header = Buffer.from("to: a,\r\n b\r\nSubject: x\r\nTo:c\r\n");

    expect(fieldsNamed(header, "TO")).toEqual(["a, b", "c"]);
  });
});

describe("ofSize", () => {
  it.each([1_000, 1_001, 4_095, 4_096, 4_097, 100_003])(
    "makes a message of exactly %i octets in whole lines",
    (size) => {
      const { content } = ofSize({ from: "a@b.example", to: "x@c.example", id: "size" }, size);

      expect(content).toHaveLength(size);
      const text = content.toString("latin1");
      expect(text.endsWith("\r\n")).toBe(true);
      expect(text.replaceAll("\r\n", "")).not.toMatch(/[\r\n]/);
    },
  );
});
